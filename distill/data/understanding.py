"""What `prepare` took a source for, in plain JSON values: to be printed, and stored with the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from distill.data.grouping import find_first_rows, group_rows, order_by_time
from distill.data.raw_table import RawTable
from distill.data.times import UNIT_NAMES, as_date, find_early, find_other_unit, tell_unit
from distill.errors import DataError

MANY_TIED = 0.9
"""ML-100K, clicked page by page, has three quarters of a user's times tied; more than this tells of rounding."""

NO_VALIDATION = (
    "no interaction is left for validation, so that nothing can be trained on this data; give another --split, or "
    "users with more items"
)


@dataclass(frozen=True)
class Dropped:
    """Rows after each filter but the last; what `prepare` keeps is after that.

    Attributes:
        rated: Rows that pass the rating threshold, rising.
        distinct: The one of each pair among them, rising.
    """

    rated: npt.NDArray[np.int64]
    distinct: npt.NDArray[np.int64]


def require_one_unit(table: RawTable) -> None:
    """Check that times are in one unit, so that they order.

    Raises:
        DataError: They are not; the first row of another unit is named.
    """
    mixed = _mixed_units(table)
    if mixed:
        raise DataError(f"{mixed}; write all times in one unit, or give --split random")


def understand(
    table: RawTable,
    kept: npt.NDArray[np.int64],
    dropped: Dropped,
    splits: npt.NDArray[np.int8],
    *,
    asked: str,
    method: str,
) -> dict[str, Any]:
    """Say what a source was taken for.

    Args:
        table: As it was read.
        kept: Rows that remain after all filters.
        dropped: Rows after the filters before.
        splits: Part of each of the rows kept: 0 train, 1 validation, 2 test.
        asked: The split asked for.
        method: The split done.

    Returns:
        `{"understood": ...}`; empty for a table that no reader made.
    """
    reading = table.reading
    if reading is None:
        return {}
    unit = None if table.timestamps is None else reading.time_unit or tell_unit(table.timestamps)
    times = _times(table, kept, unit)
    titles = _titles(table, kept)
    return {
        "understood": {
            "format": reading.format_name,
            "files": list(reading.files),
            "files_not_read": list(reading.unread_files),
            "columns": dict(reading.columns),
            "columns_not_read": list(reading.unread_columns),
            "first_row": _first_row(table, unit),
            "rows": {
                "read": table.num_rows,
                "below_the_rating": table.num_rows - len(dropped.rated),
                "repeated": len(dropped.rated) - len(dropped.distinct),
                "outside_the_core": len(dropped.distinct) - len(kept),
            },
            **({"times": times} if times else {}),
            **({"titles": titles} if titles else {}),
            "split": method,
            "split_because": _reason(table, splits, asked, method),
            "warnings": [*reading.notes, *_warnings(table, dropped, splits, method, times, titles)],
        }
    }


def _first_row(table: RawTable, unit: str | None) -> dict[str, str]:
    row = {"user": str(table.user_ids[table.user_index[0]]), "item": str(table.item_ids[table.item_index[0]])}
    if table.ratings is not None:
        row["rating"] = f"{table.ratings[0]:g}"
    if table.timestamps is not None:
        row["time"] = as_date(table.timestamps[0].item(), unit)
    return row


def _times(table: RawTable, kept: npt.NDArray[np.int64], unit: str | None) -> dict[str, Any]:
    if table.timestamps is None:
        return {}
    return {
        "first": as_date(table.timestamps.min().item(), unit),
        "last": as_date(table.timestamps.max().item(), unit),
        "unit": UNIT_NAMES[unit] if unit else "of no unit known",
        "tied": _tied_share(table.user_index[kept], table.timestamps[kept]),
    }


def _tied_share(users: npt.NDArray[np.int64], times: npt.NDArray[Any]) -> float:
    """Return the share of rows whose user has another row of the same time."""
    order = group_rows(users, order_by_time(times))
    users, times = users[order], times[order]
    same = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    tied = np.concatenate([same, [False]]) | np.concatenate([[False], same])
    return round(float(tied.mean()), 4)


def _titles(table: RawTable, kept: npt.NDArray[np.int64]) -> dict[str, int]:
    known = table.item_titles or table.item_categories
    if not known:
        return {}
    items = table.item_ids[find_first_rows(table.item_index[kept])[0]].tolist()
    return {"items": len(items), "found": sum(item in known for item in items)}


def _reason(table: RawTable, splits: npt.NDArray[np.int8], asked: str, method: str) -> str:
    train, validation = (int((splits == part).sum()) for part in (0, 1))
    drawn = f", drawn from train at random for validation: {validation:,} of {train + validation:,}"
    carved = drawn if method == "ready" and not table.has_validation else ""
    if asked != "auto":
        return f"as asked{carved}"
    if table.splits is not None:
        return f"the source is split{carved}"
    if table.timestamps is not None:
        return "the source has times"
    unread = table.reading.unread_columns if table.reading else ()
    return f"no times; if {' or '.join(unread)} is one, name it by --timestamp-column" if unread else "no times"


def _warnings(
    table: RawTable,
    dropped: Dropped,
    splits: npt.NDArray[np.int8],
    method: str,
    times: dict[str, Any],
    titles: dict[str, int],
) -> list[str]:
    found = []
    if not (splits == 1).any():
        found.append(NO_VALIDATION)
    across = _repeated_across_splits(table, dropped)
    if method == "ready" and across:
        found.append(f"{across:,} pairs stand in several parts of the ready split; each was kept in the first of them")
    found += [warning for warning in (_mixed_units(table), _early_times(table)) if warning]
    if times and times["tied"] >= MANY_TIED:
        found.append(
            f"{times['tied']:.0%} of the times equal another of the same user; these rows keep the order of the file"
        )
    if titles and not titles["found"]:
        ours, theirs = str(table.item_ids[0]), next(iter(table.item_titles or table.item_categories))
        found.append(f"no title matched: the interactions have items such as '{ours}', the titles '{theirs}'")
    return found


def _repeated_across_splits(table: RawTable, dropped: Dropped) -> int:
    """Count the pairs that stand in more than one part."""
    if table.splits is None or len(dropped.rated) == len(dropped.distinct):
        return 0
    rows = dropped.rated
    pair = table.user_index[rows] * len(table.item_ids) + table.item_index[rows]
    in_part = np.unique(np.stack([pair, table.splits[rows].astype(np.int64)]), axis=1)[0]
    return len(in_part) - len(dropped.distinct)


def _mixed_units(table: RawTable) -> str | None:
    reading = table.reading
    if table.timestamps is None or reading is None or reading.time_unit:
        return None
    other = find_other_unit(table.timestamps)
    if other is None:
        return None
    row, unit, first = other
    name = reading.columns.get("timestamp", "timestamp")
    return (
        f"{reading.path}: {reading.locate(row)}: column '{name}' is {table.timestamps[row].item()}, in "
        f"{UNIT_NAMES[unit]}, where times before it are in {UNIT_NAMES[first]}"
    )


def _early_times(table: RawTable) -> str | None:
    reading = table.reading
    if table.timestamps is None or reading is None:
        return None
    early = find_early(table.timestamps)
    if not early.any():
        return None
    row = int(np.argmax(early))
    return (
        f"{reading.path}: {reading.locate(row)}: column '{reading.columns.get('timestamp', 'timestamp')}' is "
        f"{table.timestamps[row].item()}: {int(early.sum()):,} times lie before 1970-01-02, as where a missing time is "
        "written as 0; they count as the oldest"
    )
