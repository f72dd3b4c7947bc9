"""RESULTS.md: the tables of all studies, each with its reading, which is written by hand."""

from __future__ import annotations

from pathlib import Path

from results.plan import Plan
from results.summary import render_summary
from results.tables import render_study


def render_results(plan: Plan, results: Path, readings: Path) -> str:
    """Each study's tables with their reading, between an introduction and what else was measured.

    Args:
        plan: Its studies come in order.
        results: The cells.
        readings: Folder of `introduction.md`, `<data>-<backbone>.md` for each study, and `conclusion.md`.
    """
    parts = ["# Results", _prose(readings / "introduction.md"), render_summary(plan, results)]
    for study in plan.studies:
        table = render_study(plan, study, results)
        if table:
            reading = _prose(readings / f"{study.name.replace('/', '-')}.md")
            parts += [f"## {study.name}", f"    lowpass data prepare {plan.data[study.data]}", table, reading]
    parts.append(_prose(readings / "conclusion.md"))
    return "\n\n".join(part for part in parts if part) + "\n"


def _prose(path: Path) -> str:
    return path.read_text(encoding="utf-8").strip("\n") if path.is_file() else ""
