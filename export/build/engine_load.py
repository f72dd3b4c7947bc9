"""Loading a version's items into an engine: in, indexed, measured, and only then said to be there.

A collection belongs to one version. It is filled and indexed, then asked by users' own vectors, with settings from
quick to thorough, until it finds what exact search finds; with its card it becomes visible to servers. The plain name
(an alias in Milvus, a view in PostgreSQL) follows the label `stable`, for whoever else asks the engine.
"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from distill.evaluation.metrics import overlap
from export.build.index_candidates import N_PROBE, POINTS_PER_LIST, count_lists
from export.build.questions import FEWEST_USERS, MOST_USERS, SCANNED_NUMBERS
from export.bundle import STABLE, Bundle, EngineError, ExactIndex, ExportError, Repository, rescore
from export.bundle.engines import KINDS, Card, Engine, EngineAddress, collection_name, open_engine
from export.bundle.engines.card import APPROXIMATE

RECALL_K = 20
BLOCK_NUMBERS, BLOCK_ROWS = 1 << 18, 8192
"""Numbers and items sent at a time: a MiB of floats, and a quarter of where Milvus Lite ends the connection."""
ASKED_AT_ONCE = 32
EF = (32, 64, 128, 256, 512)
SEARCH_SECONDS, CARD_SECONDS = 120.0, 30.0


class Writer(Protocol):
    """Fills one engine."""

    def create(self, name: str, dim: int, kind: str) -> None:
        """Make an empty collection, in the place of what a load that was cut left there."""
        ...

    def insert(self, name: str, first: int, vectors: npt.NDArray[np.float32]) -> None:
        """Add the items from row `first` on."""
        ...

    def build(self, name: str, kind: str, lists: int) -> float:
        """Build the index, and make the collection ready to be asked; returns its bytes an item, 0 if not known."""
        ...

    def write_card(self, name: str, card: Card) -> None:
        """Say that all is there."""
        ...

    def point(self, alias: str, name: str) -> bool:
        """Let a name stand for the collection, in one step; returns whether the engine has such names."""
        ...

    def close(self) -> None:
        """End its connections."""
        ...


@dataclass(frozen=True)
class Loaded:
    """What was loaded where.

    Attributes:
        place: The engine.
        collection: Of the version.
        card: What it says.
        users: Who were asked for, to measure it; 0 where it was there already.
        seconds: From the first item to the card; 0 where it was there already.
        alias: The name that now stands for it; empty where none was moved.
        note: What else is to be told; empty for nothing.
    """

    place: str
    collection: str
    card: Card
    users: int
    seconds: float
    alias: str = ""
    note: str = ""

    def describe(self) -> str:
        """One line."""
        card = self.card
        search = "".join(f" {key}={value}" for key, value in card.search.items())
        size = f", {card.bytes_per_item:.0f} bytes an item" if card.bytes_per_item else ""
        how = f", loaded in {self.seconds:.1f} s" if self.seconds else ", there already"
        moved = f"; {self.alias} → {self.collection}" if self.alias else ""
        note = f"; {self.note}" if self.note else ""
        return (
            f"  engine   {self.place}: {self.collection}, {card.items:,} items, {card.kind}{search}, finds"
            f" {card.recall:.1%} of the exact top {card.recall_k}{size}{how}{moved}{note}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def load_version(
    repository: Repository, bundle: Bundle, address: EngineAddress, *, kind: str = "", recall: float = 0.99
) -> Loaded:
    """Load the items of a version, unless they are there, and let the plain name follow the label `stable`.

    Args:
        repository: Where the bundle is.
        bundle: Open.
        address: Where its items are to be.
        kind: Of the index, one of `KINDS`; empty for the engine's default.
        recall: What the index must find of the exact top 20.

    Raises:
        ExportError: The engine has no such index, or it does not find enough.
        EngineError: The engine does not answer.
        EngineExtraMissing: Its driver is not installed.
    """
    given, kind = kind, check_kind(address, kind)
    manifest = bundle.manifest
    name = collection_name(address.name, bundle.path.name, manifest.items_id)
    with closing(open_engine(address)) as engine, closing(_open_writer(address)) as writer:
        card = engine.read_card(name, CARD_SECONDS)
        if card is not None:
            if given and card.kind != kind:
                raise ExportError(f"{address.place}: {name} is there as {card.kind}: drop it, or give another name")
            found = Loaded(address.place, name, card, 0, 0.0)
        else:
            found = _load(engine, writer, bundle, address.place, name, kind, recall)
        if repository.labels(manifest.model.name).get(STABLE) != bundle.path.name:
            return found
        if writer.point(address.name, name):
            return replace(found, alias=address.name)
        return replace(found, note="this engine knows no aliases: servers need none")


def check_kind(address: EngineAddress, kind: str) -> str:
    """The index to build; the engine's default one where none is given.

    Raises:
        ExportError: The engine has no such index.
    """
    kind = kind or KINDS[address.kind][0]
    if kind not in KINDS[address.kind]:
        raise ExportError(f"--to-index {kind}: {address.place} takes one of {', '.join(KINDS[address.kind])}")
    return kind


def _load(engine: Engine, writer: Writer, bundle: Bundle, place: str, name: str, kind: str, recall: float) -> Loaded:
    items = np.asarray(bundle.item_embeddings)
    count, dim = items.shape
    started = time.monotonic()
    writer.create(name, dim, kind)
    block = block_rows(dim)
    for first in tqdm(range(0, count, block), desc=f"items to {place}", unit="block", disable=None):
        writer.insert(name, first, items[first : first + block].astype(np.float32, copy=False))
    lists = count_lists(count) or max(1, count // POINTS_PER_LIST)
    size = writer.build(name, kind, lists)
    empty = Card(bundle.manifest.items_id, count, dim, kind, 0.0, min(RECALL_K, count), round(size, 1))
    users = _draw_users(bundle)
    card = choose_search(engine, name, empty, items, users, rungs(kind, lists), recall, place)
    writer.write_card(name, card)
    return Loaded(place, name, card, len(users), round(time.monotonic() - started, 2))


def block_rows(dim: int) -> int:
    """Items sent at a time."""
    return max(1, min(BLOCK_ROWS, BLOCK_NUMBERS // dim))


def rungs(kind: str, lists: int) -> list[dict[str, int]]:
    """Search settings of an index, from quick to thorough."""
    if kind == "flat":
        return [{}]
    if kind.startswith("ivf"):
        found = [{"nprobe": probes} for probes in (*(n for n in N_PROBE if n < lists), min(lists, 2 * N_PROBE[-1]))]
    else:
        found = [{"ef": ef} for ef in EF]
    return [{**search, "k_factor": 2} for search in found] if kind in APPROXIMATE else found


def choose_search(
    engine: Engine,
    name: str,
    card: Card,
    items: npt.NDArray[Any],
    users: npt.NDArray[np.float32],
    ladder: list[dict[str, int]],
    recall: float,
    place: str,
) -> Card:
    """The card with the first settings that find enough.

    Args:
        card: Of the collection, without settings.
        items: Shape (I, d).
        users: Vectors that ask, shape (S, d).
        ladder: Settings from quick to thorough.
        recall: What is to be found of the exact top k.
        place: Where, for the error.

    Raises:
        ExportError: None of them do.
        EngineError: The engine does not answer.
    """
    k = card.recall_k
    exact = list(ExactIndex(items).search(users, k)[1])
    for search in ladder:
        tried = replace(card, search=search)
        rows = []
        for first in range(0, len(users), ASKED_AT_ONCE):
            part = users[first : first + ASKED_AT_ONCE]
            wanted = min(k * search.get("k_factor", 1), len(items))
            _, found = engine.search(name, part, wanted, tried, SEARCH_SECONDS)
            if found.size and (found.max() >= len(items) or found.min() < -1):
                raise EngineError("failed", f"{place}: {name} holds rows that are not those of {len(items)} items")
            rows += list(rescore(items, part, found, k)[1])
        tried = replace(tried, recall=round(float(overlap(exact, rows).mean()), 4))
        if tried.recall >= recall:
            return tried
    raise ExportError(
        f"{place}: {card.kind} finds {tried.recall:.1%} of the exact top {k} at most, and {recall:.1%} is wanted:"
        " give another --to-index, or a lower --ann-recall; servers do not see what was loaded"
    )


def _draw_users(bundle: Bundle) -> npt.NDArray[np.float32]:
    """Vectors of some users, spread over all: as many as exact search has time for, shape (S, d)."""
    count, dim = bundle.item_embeddings.shape
    users = len(bundle.user_ids)
    wanted = min(users, MOST_USERS, max(FEWEST_USERS, SCANNED_NUMBERS // (count * dim)))
    rows = np.unique(np.linspace(0, users - 1, num=wanted, dtype=np.int64))
    return np.asarray(bundle.user_embeddings[rows], dtype=np.float32)


def _open_writer(address: EngineAddress) -> Writer:
    if address.kind == "milvus":
        from export.build.milvus_writer import MilvusWriter

        return MilvusWriter(address)
    from export.build.pgvector_writer import PgvectorWriter

    return PgvectorWriter(address)
