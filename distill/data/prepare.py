"""From a source to split interactions: rating threshold, duplicates, k-core, split, numbering.

The split methods divide each user's interactions: `ordered`, `random` and `temporal` cut a user's n rows, in file
order, shuffled or by time, at floor(n · 8/10), but at least 1, and at floor(n · 9/10): the rounding of the public FreqD
code, here in exact integers. `leave-one-out` gives a user's last row to test and the one before it to validation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from distill.data.grouping import Rows, find_first_rows, group_rows, order_by_time
from distill.data.interactions import Interactions, build_user_items
from distill.data.item_metadata import ItemMetadata, read_item_metadata
from distill.data.raw_table import RawTable
from distill.data.readers import ColumnNames, detect_format, read_table
from distill.data.understanding import Dropped, require_one_unit, understand
from distill.errors import DataError, SettingError

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLIT_METHODS = ("ordered", "random", "temporal", "leave-one-out")
DEFAULT_RATIOS = (8, 1, 1)
BY_TIME = ("temporal", "leave-one-out")


Begin = Callable[[str], object]


def say_nothing(stage: str) -> None:
    """Take the name of a stage for whoever shows no progress."""
    del stage


@dataclass(frozen=True)
class PrepareOptions:
    """How raw rows become interactions.

    Attributes:
        rating_minimum: Rows with a lower rating are dropped; None keeps all.
        user_minimum: Interactions a user must have (k-core), counted before the split.
        item_minimum: The same for items.
        split: `auto`, `ready`, or one of `SPLIT_METHODS`. `auto` keeps a ready split, else takes
            `temporal` where there are timestamps, else `random`.
        ratios: Whole parts of train, validation and test.
        seed: Of the `random` split, and of carving validation out of a ready train.
    """

    rating_minimum: float | None = None
    user_minimum: int = 0
    item_minimum: int = 0
    split: str = "auto"
    ratios: tuple[int, int, int] = DEFAULT_RATIOS
    seed: int = 0


def prepare_source(
    source: Path,
    options: PrepareOptions,
    *,
    name: str,
    format_name: str | None = None,
    columns: ColumnNames | None = None,
    items: Path | None = None,
    begin: Begin = say_nothing,
) -> Interactions:
    """Read a source and `prepare` it, recording its format and file name.

    Args:
        source: A file, or a directory that holds the files of a set.
        options: How rows become interactions.
        name: Of the data set.
        format_name: A key of `READERS`; told by the name when None.
        columns: Names of the columns, where the format has names.
        items: File of item titles and categories, to take in place of the source's own.
        begin: Told the name of each stage that begins.

    Raises:
        DataError: The source or the item file is malformed, or nothing is left.
        SettingError: A setting does not fit the source.
    """
    begin("reading")
    format_name = format_name or detect_format(source)
    metadata = _given_metadata(items, columns or ColumnNames()) if items else None
    table = read_table(source, format_name, columns, metadata)
    recorded = {"reader": format_name, "source": source.resolve().name}
    return prepare(table, options, name=name, source=recorded, begin=begin)


def prepare(
    table: RawTable,
    options: PrepareOptions,
    *,
    name: str,
    source: Mapping[str, Any] | None = None,
    begin: Begin = say_nothing,
) -> Interactions:
    """Filter, split and number the rows of a source.

    Order: rating threshold; first of each (user, item) pair (the earliest, for splits by time); k-core;
    split. Users and items that remain are numbered by first appearance in the source.

    Args:
        table: What a reader returned.
        options: They are recorded in the result, after `source`.
        name: Of the data set.
        source: What to record of where the table comes from.
        begin: Told the name of each stage that begins.

    Raises:
        DataError: Nothing is left.
        SettingError: A setting needs what the source does not have.
    """
    method = _resolve_split(table, options.split)
    if method in BY_TIME:
        require_one_unit(table)
    begin("filtering")
    kept, dropped = _filtered_rows(table, options, method)
    begin("splitting")
    splits = _split_rows(table, kept, method, options)
    begin("numbering")
    users, items, (train, validation, test) = _number(table, kept, splits)
    item_ids = table.item_ids[items]
    return Interactions(
        name=name,
        user_ids=table.user_ids[users],
        item_ids=item_ids,
        train=train,
        validation=validation,
        test=test,
        item_titles=_titles(table, item_ids),
        item_categories=_categories(table, item_ids),
        settings={
            **(source or {}),
            **_record(table, options, method),
            **understand(table, kept, dropped, splits, asked=options.split, method=method),
        },
    )


def _given_metadata(path: Path, columns: ColumnNames) -> ItemMetadata:
    metadata = read_item_metadata(path, ids_as_written=columns.ids_as_written)
    if not metadata.titles and not metadata.categories:
        raise DataError(f"{path}: no titles or categories in it; name the columns 'title' and 'categories'")
    return metadata


def _resolve_split(table: RawTable, split: str) -> str:
    if split == "ready" and table.splits is None:
        raise SettingError("--split ready: the source is not split; give --split random, ordered or temporal")
    if split != "auto":
        return split
    if table.splits is not None:
        return "ready"
    return "random" if table.timestamps is None else "temporal"


def _filtered_rows(table: RawTable, options: PrepareOptions, method: str) -> tuple[npt.NDArray[np.int64], Dropped]:
    """Find the rows to keep, in file order, and count the others."""
    kept = np.arange(table.num_rows)
    if options.rating_minimum is not None:
        if table.ratings is None:
            raise SettingError("--rating-min: the source has no ratings; drop it, or name --rating-column")
        kept = kept[table.ratings >= options.rating_minimum]
    if min(options.user_minimum, options.item_minimum) < 0:
        raise SettingError("--user-min, --item-min: must be 0 or more")
    rated = kept
    times = _take(table.timestamps, kept) if method in BY_TIME and table.timestamps is not None else None
    kept = kept[deduplicate_pairs(_take(table.user_index, kept), _take(table.item_index, kept), times)]
    distinct = kept
    core = kcore_mask(
        _take(table.user_index, kept), _take(table.item_index, kept), options.user_minimum, options.item_minimum
    )
    kept = kept[core]
    if not len(kept):
        raise DataError(
            f"none of {table.num_rows} interactions is left after the filters (rating >= "
            f"{options.rating_minimum}, user minimum {options.user_minimum}, item minimum "
            f"{options.item_minimum}); lower --rating-min, --user-min or --item-min"
        )
    return kept, Dropped(rated, distinct)


def _take(values: npt.NDArray[Any], kept: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return the values of the rows kept, rising; without a copy where all are."""
    return values if len(kept) == len(values) else values[kept]


def _split_rows(
    table: RawTable, kept: npt.NDArray[np.int64], method: str, options: PrepareOptions
) -> npt.NDArray[np.int8]:
    rng = np.random.default_rng(options.seed)
    users = _take(table.user_index, kept)
    if method == "ready" and table.splits is not None:
        ready = table.splits[kept]
        return ready if table.has_validation else carve_validation(users, ready, rng)
    times = None if table.timestamps is None else _take(table.timestamps, kept)
    return assign_splits(users, method, timestamps=times, ratios=options.ratios, rng=rng)


def _number(
    table: RawTable, kept: npt.NDArray[np.int64], splits: npt.NDArray[np.int8]
) -> tuple[Rows, Rows, list[sp.csr_matrix]]:
    """Return the users and items that remain, by first appearance, and the matrix of each split."""
    user_index, users = _renumber(_take(table.user_index, kept))
    item_index, items = _renumber(_take(table.item_index, kept))
    shape = (len(users), len(items))
    parts = (splits == part for part in (TRAIN, VALIDATION, TEST))
    return users, items, [build_user_items(user_index[part], item_index[part], shape) for part in parts]


def _renumber(index: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], Rows]:
    """Number the values that occur by first appearance; returns the new numbers and the old ones in order."""
    occurring, first = find_first_rows(index)
    values = occurring[np.argsort(first)]
    rank = np.empty(int(index.max(initial=-1)) + 1, dtype=np.int64)
    rank[values] = np.arange(len(values))
    return rank[index], values


def _titles(table: RawTable, item_ids: npt.NDArray[np.str_]) -> tuple[str, ...] | None:
    """Make titles unique: an item without one is called by its id, and namesakes carry theirs."""
    if not table.item_titles:
        return None
    titles = [table.item_titles.get(item_id, item_id) for item_id in item_ids.tolist()]
    counts = Counter(titles)
    return tuple(
        title if counts[title] == 1 else f"{title} [{item_id}]"
        for title, item_id in zip(titles, item_ids.tolist(), strict=True)
    )


def _categories(table: RawTable, item_ids: npt.NDArray[np.str_]) -> tuple[tuple[str, ...], ...] | None:
    if not table.item_categories:
        return None
    return tuple(table.item_categories.get(item_id, ()) for item_id in item_ids.tolist())


def _record(table: RawTable, options: PrepareOptions, method: str) -> dict[str, Any]:
    recorded = asdict(replace(options, split=method)) | {"ratios": ":".join(map(str, options.ratios))}
    if method == "ready":
        recorded["validation"] = "ready" if table.has_validation else "drawn from train"
    return recorded


def deduplicate_pairs(
    user_index: npt.NDArray[np.int64],
    item_index: npt.NDArray[np.int64],
    timestamps: npt.NDArray[Any] | None = None,
) -> npt.NDArray[np.int64]:
    """Select one row of every (user, item) pair: the first, or the earliest where times are given.

    Args:
        user_index: Row numbers, shape (n,).
        item_index: Row numbers, shape (n,).
        timestamps: Shape (n,); among equal times the first row counts.

    Returns:
        Rising row positions, shape (number of distinct pairs,).
    """
    by_time = None if timestamps is None else order_by_time(timestamps)
    order = group_rows(user_index, group_rows(item_index, by_time))
    is_chosen = np.zeros(len(order), dtype=bool)
    users, items = user_index[order], item_index[order]
    is_chosen[order[:1]] = True
    is_chosen[order[1:][(users[1:] != users[:-1]) | (items[1:] != items[:-1])]] = True
    return np.flatnonzero(is_chosen)


def kcore_mask(
    user_index: npt.NDArray[np.int64],
    item_index: npt.NDArray[np.int64],
    user_minimum: int,
    item_minimum: int,
) -> npt.NDArray[np.bool_]:
    """Select the largest set of rows in which every user and every item has its minimum.

    Users and items below their minimum are dropped together, again and again, until none is left; the set
    does not depend on the order of dropping.

    Args:
        user_index: Row numbers, shape (n,).
        item_index: Row numbers, shape (n,).
        user_minimum: Rows a user must keep; 0 or 1 keeps all users.
        item_minimum: The same for items.

    Returns:
        True for the rows to keep, shape (n,).
    """
    mask = np.ones(len(user_index), dtype=bool)
    if max(user_minimum, item_minimum) <= 1:
        return mask
    users, items = user_index, item_index
    while True:
        keep = (np.bincount(users) >= user_minimum)[users] & (np.bincount(items) >= item_minimum)[items]
        if keep.all():
            return mask
        mask[mask] = keep
        users, items = users[keep], items[keep]


def assign_splits(
    user_index: npt.NDArray[np.int64],
    method: str,
    *,
    timestamps: npt.NDArray[Any] | None = None,
    ratios: tuple[int, int, int] = DEFAULT_RATIOS,
    rng: np.random.Generator | None = None,
) -> npt.NDArray[np.int8]:
    """Give every row a split; every user keeps at least one row in train.

    Args:
        user_index: Row numbers, shape (n,), in file order.
        method: One of `SPLIT_METHODS`.
        timestamps: Shape (n,); needed by `temporal`, used by `leave-one-out` where given. Equal times keep
            file order.
        ratios: Whole parts of train, validation and test; not used by `leave-one-out`.
        rng: Needed by `random`.

    Returns:
        int8 of `TRAIN`, `VALIDATION`, `TEST`, shape (n,).

    Raises:
        SettingError: The method is unknown, or lacks what it needs.
    """
    if method not in SPLIT_METHODS:
        raise SettingError(f"--split: unknown method '{method}'; give one of {', '.join(SPLIT_METHODS)}")
    if method == "temporal" and timestamps is None:
        raise SettingError("--split temporal: the data has no timestamps; give --split random or ordered")
    if method == "random" and rng is None:
        raise SettingError("--split random: needs a seeded generator; give --seed")
    if method == "leave-one-out":
        return _leave_one_out(*_positions(user_index, timestamps))
    if method == "random" and rng is not None:
        return _by_ratios(*_positions_in(user_index, _inverse(rng.permutation(len(user_index)))), ratios)
    return _by_ratios(*_positions(user_index, timestamps if method == "temporal" else None), ratios)


def carve_validation(
    user_index: npt.NDArray[np.int64],
    splits: npt.NDArray[np.int8],
    rng: np.random.Generator,
) -> npt.NDArray[np.int8]:
    """Move a random ninth (rounded down) of each user's train rows to validation.

    LightGCN's own files have train and test only; a ninth of nine tenths makes them 8:1:1. Where every user has fewer
    than nine rows, a ninth of all, at least one, is drawn instead, one of a user who keeps another in train.

    Args:
        user_index: Row numbers, shape (n,).
        splits: A split without validation, shape (n,).
        rng: Draws the rows.

    Returns:
        The new split, shape (n,).
    """
    carved = splits.copy()
    train = np.flatnonzero(splits == TRAIN)
    position, count = _positions_in(user_index[train], _inverse(rng.permutation(len(train))))
    drawn = train[position < count // 9]
    if not len(drawn):
        spare = train[(position == 0) & (count > 1)]
        drawn = rng.permutation(spare)[: max(1, len(train) // 9)]
    carved[drawn] = VALIDATION
    return carved


def _positions(
    user_index: npt.NDArray[np.int64], times: npt.NDArray[Any] | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return each row's place among its user's rows by time (None: file order), and the user's row count."""
    return _positions_in(user_index, None if times is None else order_by_time(times))


def _positions_in(
    user_index: npt.NDArray[np.int64], before: Rows | None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the same where the order of all rows is known (None: file order)."""
    counts = np.bincount(user_index)
    position = np.arange(len(user_index)) - np.repeat(np.cumsum(counts) - counts, counts)
    placed = np.empty_like(position)
    placed[group_rows(user_index, before)] = position
    return placed, counts[user_index]


def _inverse(permutation: npt.NDArray[np.int64]) -> Rows:
    """Return the order that sorts a permutation."""
    order = np.empty(len(permutation), dtype=np.intp)
    order[permutation] = np.arange(len(permutation))
    return order


def _by_ratios(
    position: npt.NDArray[np.int64], count: npt.NDArray[np.int64], ratios: tuple[int, int, int]
) -> npt.NDArray[np.int8]:
    train, validation, test = ratios
    whole = train + validation + test
    if min(ratios) < 0 or train < 1:
        raise SettingError(f"--ratios {train}:{validation}:{test}: give whole parts, train at least 1")
    train_end = np.maximum(count * train // whole, 1)
    validation_end = np.maximum(count * (train + validation) // whole, train_end)
    return ((position >= train_end).astype(np.int8) + (position >= validation_end)).astype(np.int8)


def _leave_one_out(position: npt.NDArray[np.int64], count: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
    """Users of fewer than three rows stay in train as a whole: they cannot give two away."""
    from_end = np.where(count >= 3, count - 1 - position, 2)
    return np.choose(np.minimum(from_end, 2), [TEST, VALIDATION, TRAIN]).astype(np.int8)
