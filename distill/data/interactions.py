"""`Interactions`: a data set that is split already, how it is stored, and what it looks like in numbers.

A data directory holds

- `interactions.parquet`: user_index int32, item_index int32, split int8 (0 train, 1 validation, 2 test),
  sorted by split, user and item;
- `users.parquet`: user_id string, row number = user_index;
- `items.parquet`: item_id string, and, where the source has them, title string and categories list<string>;
- `dataset.json`: name, counts, settings, fingerprint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.sparse as sp

from distill.data.ids import as_array
from distill.data.reading import format_understood
from distill.errors import DataError
from distill.storage import publish_directory

SPLITS = ("train", "validation", "test")
FORMAT = 1
QUANTILES = {"min": 0.0, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95, "max": 1.0}
SAMPLE_ITEMS = 5
HASHED_AT_ONCE = 1 << 20
"""Numbers turned to int64 for the fingerprint at once."""
ITERATED_AT_ONCE = 1 << 14

T = TypeVar("T")


@dataclass(frozen=True)
class Interactions:
    """Interactions between users and items, already split.

    Attributes:
        name: Short name of the data set.
        user_ids: Outside ids, array of str of shape (|U|,); the row number is the `user_index`.
        item_ids: Outside ids, array of str of shape (|I|,); the row number is the `item_index`.
        train: float32 CSR of ones, shape (|U|, |I|), sorted indices; so are the two below.
        validation: Held out for choosing settings and for early stopping.
        test: Held out for the final report.
        item_titles: One per item, or None where the source has none.
        item_categories: A tuple of names per item, or None.
        settings: How the data was made: reader, thresholds, split, seed; `understood`: what the source was taken for.
        fingerprint: SHA-256 over ids and split interactions; equal content, equal fingerprint.
    """

    name: str
    user_ids: npt.NDArray[np.str_]
    item_ids: npt.NDArray[np.str_]
    train: sp.csr_matrix
    validation: sp.csr_matrix
    test: sp.csr_matrix
    item_titles: Sequence[str] | None = None
    item_categories: Sequence[tuple[str, ...]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def num_users(self) -> int:
        """|U|."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """|I|."""
        return len(self.item_ids)

    @property
    def counts(self) -> dict[str, int]:
        """Number of users, of items, and of interactions in each split."""
        return {
            "users": self.num_users,
            "items": self.num_items,
            **{name: int(getattr(self, name).nnz) for name in SPLITS},
        }

    @cached_property
    def item_popularity(self) -> npt.NDArray[np.int64]:
        """Training interactions of each item, shape (|I|,)."""
        counts: npt.NDArray[np.int64] = np.bincount(self.train.indices, minlength=self.num_items)
        return counts

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the ids and the three matrices."""
        digest = hashlib.sha256()
        for ids in (self.user_ids, self.item_ids):
            digest.update(json.dumps(ids.tolist()).encode())
        for name in SPLITS:
            matrix: sp.csr_matrix = getattr(self, name)
            for numbers in (matrix.indptr, matrix.indices):
                for first in range(0, len(numbers), HASHED_AT_ONCE):
                    digest.update(numbers[first : first + HASHED_AT_ONCE].astype("<i8").tobytes())
        return digest.hexdigest()


class StoredColumn(Sequence[T], Generic[T]):
    """A column of Arrow whose values become Python's when they are asked for: a million titles stay in 40 MB."""

    def __init__(self, column: Any, convert: Callable[[Any], T]) -> None:
        """Keep the column.

        Args:
            column: Arrow's chunked array.
            convert: Makes a value of what Arrow gives.
        """
        self._column, self._convert = column, convert

    def __len__(self) -> int:
        return len(self._column)

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: int | slice) -> T | Sequence[T]:
        if isinstance(place, slice):
            return StoredColumn(
                self._column.take(pa.array(range(*place.indices(len(self))), pa.int64())), self._convert
            )
        return self._convert(self._column[place].as_py())

    def __iter__(self) -> Iterator[T]:
        for batch in self._column.chunks:
            for first in range(0, len(batch), ITERATED_AT_ONCE):
                yield from map(self._convert, batch.slice(first, ITERATED_AT_ONCE).to_pylist())


def build_user_items(
    user_index: npt.NDArray[np.integer[Any]],
    item_index: npt.NDArray[np.integer[Any]],
    shape: tuple[int, int],
) -> sp.csr_matrix:
    """Build a CSR of ones from pairs; a pair given twice counts once.

    Args:
        user_index: Row numbers, shape (n,).
        item_index: Column numbers, shape (n,).
        shape: (|U|, |I|).

    Returns:
        float32 CSR with sorted indices.
    """
    matrix = sp.csr_matrix((np.ones(len(user_index), dtype=np.float32), (user_index, item_index)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    matrix.sort_indices()
    return matrix


def save_interactions(data: Interactions, directory: Path) -> None:
    """Write a data directory whole or not at all.

    Raises:
        DataError: `directory` exists and is not a data directory.
    """
    if directory.exists() and not (directory / "dataset.json").is_file():
        raise DataError(f"{directory}: exists and is not a data directory; give another path for the output")
    with publish_directory(directory) as draft:
        pq.write_table(_interaction_table(data), draft / "interactions.parquet")
        pq.write_table(pa.table({"user_id": pa.array(data.user_ids, pa.string())}), draft / "users.parquet")
        items: dict[str, Any] = {"item_id": pa.array(data.item_ids, pa.string())}
        if data.item_titles is not None:
            items["title"] = pa.array(data.item_titles, pa.string())
        if data.item_categories is not None:
            items["categories"] = pa.array([list(c) for c in data.item_categories], pa.list_(pa.string()))
        pq.write_table(pa.table(items), draft / "items.parquet")
        description = {
            "format": FORMAT,
            "name": data.name,
            "counts": data.counts,
            "settings": dict(data.settings),
            "fingerprint": data.fingerprint,
        }
        (draft / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_interactions(directory: Path | str) -> Interactions:
    """Read a data directory, as `save_interactions` wrote it, and check it against its fingerprint.

    Raises:
        DataError: A file is missing, unreadable, or its content is not what `dataset.json` says.
    """
    directory = Path(directory)
    description_path = directory / "dataset.json"
    if not description_path.is_file():
        raise DataError(f"{directory}: no dataset.json there; make a data directory with 'lowpass data prepare'")
    try:
        description = json.loads(description_path.read_text(encoding="utf-8"))
        users = pq.read_table(directory / "users.parquet")
        items = pq.read_table(directory / "items.parquet")
        # One after the other: whole, Arrow's columns and NumPy's together would be the most that is ever held.
        columns = {
            name: pq.read_table(directory / "interactions.parquet", columns=[name])[name].to_numpy()
            for name in ("split", "user_index", "item_index")
        }
        data = _assemble(description, users, items, columns)
        recorded = description["fingerprint"]
        if description["format"] != FORMAT:
            raise ValueError(f"format {description['format']}, this version reads {FORMAT}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DataError(
            f"{directory}: unreadable data directory ({error}); run 'lowpass data prepare' again"
        ) from error
    if data.fingerprint != recorded:
        raise DataError(f"{description_path}: fingerprint does not match the content; run 'lowpass data prepare' again")
    return data


def describe(data: Interactions) -> dict[str, Any]:
    """Summarise a data set as plain JSON values: counts, density, degrees and its most popular items.

    Degrees count all three splits; popularity counts train alone.
    """
    total = sum(int(getattr(data, name).nnz) for name in SPLITS)
    users = sum(np.diff(getattr(data, name).indptr) for name in SPLITS)
    items = sum(np.bincount(getattr(data, name).indices, minlength=data.num_items) for name in SPLITS)
    return {
        "name": data.name,
        "counts": data.counts,
        "density": total / max(1, data.num_users * data.num_items),
        "interactions_per_user": _quantiles(np.asarray(users)),
        "interactions_per_item": _quantiles(np.asarray(items)),
        "settings": dict(data.settings),
        "fingerprint": data.fingerprint,
        "popular_items": _popular_items(data),
    }


def format_description(description: dict[str, Any]) -> str:
    """Lay out what `describe` returned, for people."""
    counts = ", ".join(f"{count:,} {name}" for name, count in description["counts"].items())
    settings = dict(description["settings"])
    understood = settings.pop("understood", None)
    words = ", ".join(f"{key} {value}" for key, value in settings.items())
    lines = [
        f"{description['name']}: {counts}",
        f"density      {description['density']:.4%}",
        f"per user     {_in_words(description['interactions_per_user'])}",
        f"per item     {_in_words(description['interactions_per_item'])}",
        *(format_understood(understood) if understood else ()),
        f"settings     {words}",
        f"fingerprint  {description['fingerprint']}",
        "popular:",
    ]
    for item in description["popular_items"]:
        categories = f"  ({', '.join(item['categories'])})" if item.get("categories") else ""
        lines.append(f"  {item['train']:>7,}  {item['item_id']}  {item.get('title', '')}{categories}".rstrip())
    return "\n".join(lines)


def _interaction_table(data: Interactions) -> pa.Table:
    columns: dict[str, list[npt.NDArray[Any]]] = {"user_index": [], "item_index": [], "split": []}
    for number, name in enumerate(SPLITS):
        pairs = getattr(data, name).tocoo()
        columns["user_index"].append(pairs.row.astype(np.int32))
        columns["item_index"].append(pairs.col.astype(np.int32))
        columns["split"].append(np.full(pairs.nnz, number, dtype=np.int8))
    return pa.table({name: np.concatenate(parts) for name, parts in columns.items()})


def _assemble(
    description: dict[str, Any], users: pa.Table, items: pa.Table, columns: dict[str, npt.NDArray[Any]]
) -> Interactions:
    user_ids, item_ids = as_array(users["user_id"]), as_array(items["item_id"])
    train, validation, test = _split_matrices(columns, (len(user_ids), len(item_ids)))
    names = items.column_names
    return Interactions(
        name=str(description["name"]),
        user_ids=user_ids,
        item_ids=item_ids,
        train=train,
        validation=validation,
        test=test,
        item_titles=StoredColumn(items["title"], str) if "title" in names else None,
        item_categories=StoredColumn(items["categories"], tuple) if "categories" in names else None,
        settings=description["settings"],
    )


def _split_matrices(columns: dict[str, npt.NDArray[Any]], shape: tuple[int, int]) -> list[sp.csr_matrix]:
    """Return the matrix of each split; what is in order, as `save_interactions` writes it, needs no sorting."""
    split, users, items = (columns[name] for name in ("split", "user_index", "item_index"))
    parts: list[Any]
    if bool((split[1:] >= split[:-1]).all()):
        ends = np.searchsorted(split, np.arange(len(SPLITS) + 1, dtype=split.dtype))
        parts = [slice(first, last) for first, last in pairwise(ends)]
    else:
        parts = [split == number for number in range(len(SPLITS))]
    return [_as_matrix(users[part], items[part], shape) for part in parts]


def _as_matrix(users: npt.NDArray[Any], items: npt.NDArray[Any], shape: tuple[int, int]) -> sp.csr_matrix:
    for rows, bound in ((users, shape[0]), (items, shape[1])):
        if len(rows) and not (rows.min() >= 0 and rows.max() < bound):
            raise ValueError(f"row number {rows.max()} of {bound}")
    rising = (users[1:] > users[:-1]) | ((users[1:] == users[:-1]) & (items[1:] > items[:-1]))
    if not rising.all():
        return build_user_items(users, items, shape)
    starts = np.concatenate([[0], np.cumsum(np.bincount(users, minlength=shape[0]))])
    # A copy: what Arrow lends cannot be written to, of which torch warns.
    matrix = sp.csr_matrix((np.ones(len(items), dtype=np.float32), np.array(items), starts), shape=shape)
    matrix.has_canonical_format = True
    return matrix


def _quantiles(degree: npt.NDArray[Any]) -> dict[str, float]:
    values = np.quantile(degree, list(QUANTILES.values()))
    summary = dict(zip(QUANTILES, values.tolist(), strict=True))
    return summary | {"mean": float(degree.mean())}


def _in_words(summary: dict[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in summary.items())


def _popular_items(data: Interactions) -> list[dict[str, Any]]:
    sample = []
    for item_index in np.argsort(-data.item_popularity, kind="stable")[:SAMPLE_ITEMS].tolist():
        taken = int(data.item_popularity[item_index])
        item: dict[str, Any] = {"item_id": str(data.item_ids[item_index]), "train": taken}
        if data.item_titles is not None:
            item["title"] = data.item_titles[item_index]
        if data.item_categories is not None:
            item["categories"] = list(data.item_categories[item_index])
        sample.append(item)
    return sample
