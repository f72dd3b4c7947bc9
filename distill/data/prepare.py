"""From a raw table to split interactions: rating threshold, duplicates, k-core, split, numbering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.data.interactions import Interactions, build_user_items
from distill.data.kcore import first_pairs, kcore_mask
from distill.data.raw_table import RawTable
from distill.data.splits import DEFAULT_RATIOS, TEST, TRAIN, VALIDATION, assign_splits, carve_validation
from distill.errors import DataError, SettingError

BY_TIME = ("temporal", "leave-one-out")


@dataclass(frozen=True)
class PrepareOptions:
    """How raw rows become interactions.

    Attributes:
        rating_minimum: Rows with a lower rating are dropped; None keeps all.
        user_minimum: Interactions a user must have (k-core), counted before the split.
        item_minimum: The same for items.
        split: `auto`, `ready`, or one of `splits.SPLIT_METHODS`. `auto` keeps a ready split, else takes
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


def prepare(
    table: RawTable,
    options: PrepareOptions,
    *,
    name: str,
    source: Mapping[str, Any] | None = None,
) -> Interactions:
    """Filter, split and number the rows of a source.

    Order: rating threshold; first of each (user, item) pair (the earliest, for splits by time); k-core;
    split. Users and items that remain are numbered by first appearance in the source.

    Args:
        table: What a reader returned.
        options: The settings; recorded in the result, after what `source` says of the table.
        name: Name of the data set.
        source: Further settings to record.

    Raises:
        DataError: Nothing is left.
        SettingError: A setting needs what the source does not have.
    """
    method = _resolve_split(table, options.split)
    kept = _filtered_rows(table, options, method)
    splits = _split_rows(table, kept, method, options)
    user_index, users = _renumber(table.user_index[kept])
    item_index, items = _renumber(table.item_index[kept])
    shape = (len(users), len(items))
    train, validation, test = (
        build_user_items(user_index[splits == part], item_index[splits == part], shape)
        for part in (TRAIN, VALIDATION, TEST)
    )
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
        settings={**(source or {}), **_record(table, options, method)},
    )


def _record(table: RawTable, options: PrepareOptions, method: str) -> dict[str, Any]:
    recorded = asdict(replace(options, split=method)) | {"ratios": ":".join(map(str, options.ratios))}
    if method == "ready":
        recorded["validation"] = "ready" if table.has_validation else "random ninth of train"
    return recorded


def _resolve_split(table: RawTable, split: str) -> str:
    if split == "ready" and table.splits is None:
        raise SettingError("--split ready: the source is not split; give --split random, ordered or temporal")
    if split != "auto":
        return split
    if table.splits is not None:
        return "ready"
    return "random" if table.timestamps is None else "temporal"


def _filtered_rows(table: RawTable, options: PrepareOptions, method: str) -> npt.NDArray[np.int64]:
    """Positions of the rows to keep, in file order."""
    kept = np.arange(table.num_rows)
    if options.rating_minimum is not None:
        if table.ratings is None:
            raise SettingError("--rating-min: the source has no ratings; drop it, or name --rating-column")
        kept = kept[table.ratings >= options.rating_minimum]
    if min(options.user_minimum, options.item_minimum) < 0:
        raise SettingError("--user-min, --item-min: must be 0 or more")
    times = table.timestamps[kept] if method in BY_TIME and table.timestamps is not None else None
    kept = kept[first_pairs(table.user_index[kept], table.item_index[kept], times)]
    core = kcore_mask(table.user_index[kept], table.item_index[kept], options.user_minimum, options.item_minimum)
    kept = kept[core]
    if not len(kept):
        raise DataError(
            f"none of {table.num_rows} interactions is left after the filters (rating >= "
            f"{options.rating_minimum}, user minimum {options.user_minimum}, item minimum "
            f"{options.item_minimum}); lower --rating-min, --user-min or --item-min"
        )
    return kept


def _split_rows(
    table: RawTable, kept: npt.NDArray[np.int64], method: str, options: PrepareOptions
) -> npt.NDArray[np.int8]:
    rng = np.random.default_rng(options.seed)
    users = table.user_index[kept]
    if method == "ready" and table.splits is not None:
        ready = table.splits[kept]
        return ready if table.has_validation else carve_validation(users, ready, rng)
    times = None if table.timestamps is None else table.timestamps[kept]
    return assign_splits(users, method, timestamps=times, ratios=options.ratios, rng=rng)


def _renumber(index: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Number the values that occur by first appearance; returns the new numbers and the old ones in order."""
    values, first, inverse = np.unique(index, return_index=True, return_inverse=True)
    by_appearance = np.argsort(first)
    rank = np.empty(len(values), dtype=np.int64)
    rank[by_appearance] = np.arange(len(values))
    return rank[inverse], values[by_appearance]


def _titles(table: RawTable, item_ids: npt.NDArray[np.str_]) -> tuple[str, ...] | None:
    """Titles, unique: an item without one is called by its id, and namesakes carry theirs."""
    if not table.item_titles:
        return None
    titles = [table.item_titles.get(item_id, item_id) for item_id in item_ids.tolist()]
    _, inverse, counts = np.unique(titles, return_inverse=True, return_counts=True)
    return tuple(
        title if count == 1 else f"{title} [{item_id}]"
        for title, item_id, count in zip(titles, item_ids.tolist(), counts[inverse].tolist(), strict=True)
    )


def _categories(table: RawTable, item_ids: npt.NDArray[np.str_]) -> tuple[tuple[str, ...], ...] | None:
    if not table.item_categories:
        return None
    return tuple(table.item_categories.get(item_id, ()) for item_id in item_ids.tolist())
