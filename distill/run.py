"""A run: what training leaves behind, what `export` reads, and what answers in Python without a server.

A run directory holds

- `config.json`: every setting that produced it, the data's name and fingerprint, the teacher's run (if any);
- `embeddings.safetensors`: `user_embeddings` (|U|, d) and `item_embeddings` (|I|, d), final features whose inner
  product is the score: float32, or float16 where they were imported so; it is mapped, and whoever calculates takes the
  rows it needs to float32;
- `users.parquet`, `items.parquet`: the outside ids of the rows, as in the data directory; runs from before they were
  kept have none;
- `metrics.json`: validation and test reports with their convention, seconds and peak memory;
- `trajectory/EPOCH.safetensors`, where training was asked to keep some: the embeddings at earlier epochs, in float16;
- `history.csv`: a line an evaluated epoch: epoch, losses, validation metrics, seconds;
- `export_quality.json`: what `export` measured of it, so that it is not measured again;
- `checkpoint.*`: what a resumed run continues from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from distill.data.ids import as_array
from distill.data.interactions import Interactions
from distill.embeddings_file import Vectors, map_embeddings, write_embeddings
from distill.errors import RunError, SettingError
from distill.finite import blocks_of_rows, find_flaw
from distill.storage import publish_file, write_file

CONFIG_FILE = "config.json"
EMBEDDINGS_FILE = "embeddings.safetensors"
METRICS_FILE = "metrics.json"
HISTORY_FILE = "history.csv"
TRAJECTORY = "trajectory"
ID_FILES = {"user_id": "users.parquet", "item_id": "items.parquet"}
"""Column → file of outside ids, of a run as of a data directory."""

Ids = npt.NDArray[np.str_]

Seen = Literal["train+validation", "all"]


@dataclass(frozen=True, slots=True)
class ScoredItem:
    """An item of an answer.

    Attributes:
        item_id: Outside id.
        score: Inner product, or cosine of similar items; of a user without a direction, the item's popularity.
        title: None where the data has no titles.
    """

    item_id: str
    score: float
    title: str | None = None


@dataclass(frozen=True)
class Run:
    """A finished run, read from disk.

    Attributes:
        path: The run directory.
        config: Settings as written by training; has `backbone`, `method`, `dim`, `data` {name, fingerprint},
            `teacher` (path or None) and `seed`.
        user_embeddings: float32, or float16 as imported: shape (|U|, d).
        item_embeddings: Likewise, shape (|I|, d).
        metrics: {"validation": report, "test": report, ...}; empty where never evaluated.
        data: What it was trained on; None where it was opened without. Only a run with data knows ids and answers.
    """

    path: Path
    config: Mapping[str, Any]
    user_embeddings: Vectors
    item_embeddings: Vectors
    metrics: Mapping[str, Any]
    data: Interactions | None = field(default=None, repr=False, compare=False)

    @property
    def dim(self) -> int:
        """Embedding dimension d."""
        return int(self.item_embeddings.shape[1])

    def require_same_data(self, data: Interactions) -> None:
        """Check that the run's rows are the rows of `data`.

        Raises:
            RunError: The run was trained on other data.
        """
        if self.config.get("data", {}).get("fingerprint") != data.fingerprint:
            raise RunError(
                f"{self.path / CONFIG_FILE}: data.fingerprint is not that of data set '{data.name}'; "
                "give the data directory this run was trained on"
            )

    def recommend(self, user_id: str, k: int = 10, *, seen: Seen = "train+validation") -> list[ScoredItem]:
        """Answer with the items that a user likes best and does not have, as a server of this run does.

        Args:
            user_id: Outside id of the user.
            k: Length of the list; it is shorter where fewer items are left.
            seen: What the user has: "all" counts the test items too, which the default leaves to be found.

        Returns:
            Items by inner product, best first, equal scores by rising row; by popularity where the user's embedding
            is 0.

        Raises:
            RunError: The run was opened without its data, or no such user is in it.
            SettingError: `k` is below 1.
        """
        data = self._known_data()
        user = self._row("user", user_id)
        splits = (data.train, data.validation, data.test) if seen == "all" else (data.train, data.validation)
        has = np.concatenate([split[user].indices for split in splits])
        vector, items = (np.asarray(side, np.float32) for side in (self.user_embeddings[user], self.item_embeddings))
        scores = items @ vector if vector.any() else data.item_popularity.astype(np.float32)
        return self._best(scores, has, k)

    def similar_items(self, item_id: str, k: int = 10) -> list[ScoredItem]:
        """Answer with the items whose vectors point most nearly where an item's does; the item itself is left out.

        Args:
            item_id: Outside id of the item.
            k: Length of the list; it is shorter where there are fewer items.

        Returns:
            Items by cosine, best first, equal scores by rising row.

        Raises:
            RunError: The run was opened without its data, or no such item is in it.
            SettingError: `k` is below 1.
        """
        item = self._row("item", item_id)
        items = np.asarray(self.item_embeddings, np.float32)
        lengths = np.linalg.norm(items, axis=1)
        directions = items / np.where(lengths > 0, lengths, 1)[:, None]
        return self._best(directions @ directions[item], np.array([item]), k)

    def _known_data(self) -> Interactions:
        if self.data is None:
            raise RunError(f"{self.path}: knows no ids; open it with its data: open_run(path, load_interactions(…))")
        return self.data

    @cached_property
    def _rows(self) -> dict[str, dict[str, int]]:
        data = self._known_data()
        ids = {"user": data.user_ids, "item": data.item_ids}
        return {kind: {str(value): row for row, value in enumerate(values)} for kind, values in ids.items()}

    def _row(self, kind: str, outside_id: str) -> int:
        try:
            return self._rows[kind][outside_id]
        except KeyError:
            raise RunError(f"{self.path}: no {kind} '{outside_id}' in data set '{self._known_data().name}'") from None

    def _best(self, scores: npt.NDArray[np.float32], hidden: npt.NDArray[np.integer[Any]], k: int) -> list[ScoredItem]:
        """The k highest scores, without those of hidden rows."""
        if k < 1:
            raise SettingError(f"k: {k} is below 1")
        order = np.argsort(-scores, kind="stable")
        best = order[~np.isin(order, hidden)][:k]
        data = self._known_data()
        titles: Sequence[str | None] = data.item_titles or [None] * data.num_items
        return [ScoredItem(str(data.item_ids[row]), float(scores[row]), titles[row]) for row in best]


def features_fingerprint(run: Run) -> str:
    """SHA-256 (hex) of a run's embeddings, by which students know their teacher."""
    digest = hashlib.sha256()
    for side in (run.user_embeddings, run.item_embeddings):
        for _, block in blocks_of_rows(side):
            digest.update(block.tobytes())
    return digest.hexdigest()


def write_run(
    path: Path,
    config: Mapping[str, Any],
    user_embeddings: Vectors,
    item_embeddings: Vectors,
    metrics: Mapping[str, Any],
) -> None:
    """Write the three files that make `path` a run; `metrics.json` comes last and marks it finished."""
    tensors = {"user_embeddings": user_embeddings, "item_embeddings": item_embeddings}
    write_file(path / CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode())
    write_embeddings(path / EMBEDDINGS_FILE, tensors)
    write_file(path / METRICS_FILE, (json.dumps(metrics, indent=2) + "\n").encode())


def write_ids(path: Path, user_ids: Ids, item_ids: Ids) -> None:
    """Write the outside ids of a run's rows, shapes (|U|,) and (|I|,), before the run is finished."""
    for (column, name), ids in zip(ID_FILES.items(), (user_ids, item_ids), strict=True):
        with publish_file(path / name) as draft:
            pq.write_table(pa.table({column: pa.array(ids, pa.string())}), draft)


def read_ids(run: Run) -> tuple[Ids, Ids]:
    """Read the outside ids of a run's rows: users (|U|,) and items (|I|,).

    Raises:
        RunError: The run has none, or they are unreadable or as many as it has no rows.
    """
    found = []
    sides = (run.user_embeddings, run.item_embeddings)
    for (column, name), rows in zip(ID_FILES.items(), sides, strict=True):
        file = run.path / name
        if not file.is_file():
            raise RunError(
                f"{file}: missing, so nobody knows whose rows these are; an earlier version wrote the run: "
                f"'lowpass evaluate {run.path} --data DATA --save', with the data it was trained on, adds them"
            )
        try:
            ids = as_array(pq.read_table(file, columns=[column])[column])
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise RunError(f"{file}: unreadable ids ({error}); train the run again") from error
        if len(ids) != len(rows):
            raise RunError(f"{file}: {len(ids)} ids for {len(rows)} rows; train the run again")
        found.append(ids)
    return found[0], found[1]


def match_ids(before: Ids, now: Ids) -> npt.NDArray[np.int64]:
    """Find the rows that ids had before: shape of `now`, −1 for those that were not there."""
    if not len(before):
        return np.full(len(now), -1, dtype=np.int64)
    order = np.argsort(before, kind="stable")
    places = np.minimum(np.searchsorted(before[order], now), len(before) - 1)
    rows: npt.NDArray[np.int64] = order[places]
    return np.where(before[rows] == now, rows, -1)


def write_trajectory(path: Path, trajectory: Mapping[int, tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> None:
    """Write a run's embeddings at earlier epochs, shapes (|U|, d) and (|I|, d), a file each."""
    for epoch, (users, items) in trajectory.items():
        content = save({"user_embeddings": np.ascontiguousarray(users), "item_embeddings": np.ascontiguousarray(items)})
        (path / TRAJECTORY).mkdir(exist_ok=True)
        write_file(path / TRAJECTORY / f"{epoch}.safetensors", content)


def open_trajectory(path: Path) -> list[tuple[npt.NDArray[np.float16], npt.NDArray[np.float16]]]:
    """Read a run's user and item embeddings at earlier epochs, earliest first; empty where none were kept.

    Raises:
        RunError: A file is unreadable.
    """
    try:
        files = sorted((path / TRAJECTORY).glob("*.safetensors"), key=lambda file: int(file.stem))
        past = [load_file(file) for file in files]
        pairs = [(tensors["user_embeddings"], tensors["item_embeddings"]) for tensors in past]
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunError(f"{path / TRAJECTORY}: unreadable checkpoints ({error}); train the run again") from error
    for file, pair in zip(files, pairs, strict=True):
        _require_finite(file, *pair)
    return pairs


def open_run(path: Path | str, data: Interactions | None = None) -> Run:
    """Read a finished run.

    Args:
        path: The run directory.
        data: What it was trained on, where it is to answer by ids.

    Raises:
        RunError: `path` is not a finished run, a file of it is unreadable, its embeddings cannot be scored with, or it
            was trained on other data.
    """
    path = Path(path)
    if not (path / METRICS_FILE).is_file():
        raise RunError(
            f"{path}: no finished run there ({METRICS_FILE} is missing); train it, or resume it with --resume"
        )
    try:
        config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        metrics = json.loads((path / METRICS_FILE).read_text(encoding="utf-8"))
        tensors = map_embeddings(path / EMBEDDINGS_FILE)
        run = Run(path, config, tensors["user_embeddings"], tensors["item_embeddings"], metrics, data)
        _require_finite(path / EMBEDDINGS_FILE, run.user_embeddings, run.item_embeddings)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunError(f"{path}: unreadable run ({error}); train it again") from error
    if data is not None:
        run.require_same_data(data)
    return run


def _require_finite(path: Path, users: npt.NDArray[Any], items: npt.NDArray[Any]) -> None:
    for side, embeddings in (("user_embeddings", users), ("item_embeddings", items)):
        if flaw := find_flaw(embeddings):
            raise RunError(f"{path}: {side}: {flaw}; train or import the run again")
