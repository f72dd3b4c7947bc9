"""What was measured: kept a file a step, and laid out against the bars."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from tests.benchmarks.scale.bars import BARS, GROWING, MAX_EXPONENT, SIZES
from tests.benchmarks.scale.steps import STEPS, Measured

GIB = 2**30
COLUMNS = ("left", "left", "right", "right", "right", "right", "right", "left", "right", "left")


@dataclass(frozen=True)
class Result:
    """A step at a size: what it took, or why there is nothing.

    Attributes:
        step: Key of `STEPS`.
        size: Key of `SIZES`.
        interactions: In train.
        measured: None where it failed.
        failure: In words; empty where it did not fail.
        commit: Of the code; empty where that is not known.
    """

    step: str
    size: str
    interactions: int
    measured: Measured | None = None
    failure: str = ""
    commit: str = ""

    @property
    def is_met(self) -> bool | None:
        """Whether it keeps its bar; None where there is none."""
        bar = BARS.get((self.step, self.size))
        if bar is None:
            return None
        if self.measured is None:
            return False
        within = bar.peak_gib is None or self.measured.peak_bytes <= bar.peak_gib * GIB
        return within and self.measured.seconds <= bar.seconds

    def exponent(self, smaller: Result) -> float | None:
        """Return e where seconds grow as interactions^e from the smaller size to this; None where one failed."""
        if self.measured is None or smaller.measured is None or self.interactions <= smaller.interactions:
            return None
        grown = math.log(self.measured.seconds / smaller.measured.seconds)
        return grown / math.log(self.interactions / smaller.interactions)


def keep(folder: Path, result: Result) -> None:
    """Write `results/STEP.json` in the folder of the size."""
    path = folder / "results" / f"{result.step}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")
    draft.replace(path)


def find_kept(folder: Path, step: str) -> Result | None:
    """Return what `keep` wrote, or None."""
    path = folder / "results" / f"{step}.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    measured = found.pop("measured")
    return Result(**found, measured=None if measured is None else Measured(**measured))


def exponents(results: Sequence[Result]) -> dict[tuple[str, str], float]:
    """Return (step, size) → exponent of its growth from the next smaller size that was measured."""
    by_size = sorted(results, key=lambda result: list(SIZES).index(result.size))
    last: dict[str, Result] = {}
    found = {}
    for result in by_size:
        before = last.get(result.step)
        exponent = None if before is None else result.exponent(before)
        if exponent is not None:
            found[result.step, result.size] = exponent
        if result.measured is not None:
            last[result.step] = result
    return found


def as_json(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return plain values, with bar, exponent and whether they are kept."""
    grown = exponents(results)
    rows = []
    for result in results:
        bar = BARS.get((result.step, result.size))
        more = {"bar": None if bar is None else asdict(bar), "is_met": result.is_met}
        rows.append(asdict(result) | more | {"exponent": grown.get((result.step, result.size))})
    return rows


def lay_out(results: Sequence[Result]) -> str:
    """Return a Markdown table, and below it what failed."""
    grown = exponents(results)
    rows = [_row(result, grown) for result in results]
    headers = ["step", "size", "seconds", "bar", "GiB", "bar", "Recall@20", "bars", "exponent", "more"]
    table = tabulate(rows, headers, tablefmt="pipe", disable_numparse=True, colalign=COLUMNS)
    failed = [f"{result.size} {result.step}: {result.failure}" for result in results if result.failure]
    return "\n".join([table, *failed])


def _row(result: Result, grown: Mapping[tuple[str, str], float]) -> list[str]:
    bar, found = BARS.get((result.step, result.size)), result.measured
    exponent = grown.get((result.step, result.size))
    too_steep = exponent is not None and result.step in GROWING and result.size == "L" and exponent > MAX_EXPONENT
    met = {None: "", True: "met", False: "missed"}[result.is_met]
    return [
        STEPS[result.step].title,
        result.size,
        "–" if found is None else f"{found.seconds:,.2f}",
        "" if bar is None else f"{bar.seconds:,.0f}",
        "–" if found is None else f"{found.peak_bytes / GIB:.2f}",
        "" if bar is None or bar.peak_gib is None else f"{bar.peak_gib:g}",
        "" if found is None or found.quality is None else f"{found.quality:.4f}",
        met,
        "" if exponent is None else f"{exponent:.2f}" + (f" > {MAX_EXPONENT}" if too_steep else ""),
        "" if found is None else ", ".join(f"{name} {_short(value)}" for name, value in found.more.items()),
    ]


def _short(value: Any) -> str:
    if isinstance(value, int) and value > 100 * 2**20:
        return f"{value / GIB:.2f} GiB"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
