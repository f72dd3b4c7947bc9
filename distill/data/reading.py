"""What a reader understood of a source, so that it can be shown: nothing is to be misread in silence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SHOWN_FILES = 3


@dataclass(frozen=True)
class Reading:
    """What was read as what.

    Attributes:
        path: The source.
        format_name: A key of `readers.READERS`.
        files: Names of the files read.
        columns: "user", "item", "rating" or "timestamp" → the column it was read from.
        locate: Row number (from 0) → words such as "line 17".
        unread_columns: Columns that mean nothing here.
        unread_files: Files of the same kind that were left aside.
        time_unit: "us" where times were dates, None where they were numbers.
        notes: What the user should know, each with a place and a count where it has them.
    """

    path: Path
    format_name: str
    files: tuple[str, ...]
    columns: Mapping[str, str]
    locate: Callable[[int], str] = field(repr=False, compare=False)
    unread_columns: tuple[str, ...] = ()
    unread_files: tuple[str, ...] = ()
    time_unit: str | None = None
    notes: tuple[str, ...] = ()


def format_understood(understood: Mapping[str, Any]) -> list[str]:
    """Lay out `settings["understood"]` of a prepared data set for people, a line a thing."""
    files = ", ".join(understood["files"][:SHOWN_FILES])
    if len(understood["files"]) > SHOWN_FILES:
        files += f" and {len(understood['files']) - SHOWN_FILES:,} more"
    counts = {name: count for name, count in understood["rows"].items() if count or name == "read"}
    rows = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
    lines = [
        f"format       {understood['format']}: {files}{_left_aside(understood['files_not_read'])}",
        f"columns      {_pairs(understood['columns'])}{_left_aside(understood['columns_not_read'])}",
        f"first row    {_pairs(understood['first_row'])}",
        f"rows         {rows}",
    ]
    times = understood.get("times")
    if times:
        lines.append(f"times        {times['first']} to {times['last']} ({times['unit']}), {times['tied']:.0%} tied")
    titles = understood.get("titles")
    if titles:
        lines.append(f"titles       {titles['found']:,} of {titles['items']:,} items")
    return [*lines, f"split        {understood['split']}: {understood['split_because']}"]


def _left_aside(names: list[str]) -> str:
    return f"; not read: {', '.join(names)}" if names else ""


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.items())
