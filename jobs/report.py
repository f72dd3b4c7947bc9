"""`report.html`: what a run did, how the gate judged, and how good the student is, on one self-contained page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from distill.report.material import gather
from distill.report.page import render_sections
from distill.report.sections import LeftOut, Section, Text, build_learning, build_quality
from distill.report.tables import NOTHING, Cell, Row, Table
from distill.storage import write_file
from export.bundle.manifest import MANIFEST_FILE
from jobs.estimate import say_seconds
from jobs.gate.quality import NDCG, RECALL
from jobs.record.state import FAILED, HELD, PUBLISHED, GateRow, RunState, StepState
from jobs.record.state import NOTHING as NOTHING_TO_DO

REPORT_FILE = "report.html"
SAID = {
    PUBLISHED: ("published", "every check of the gate was passed"),
    HELD: ("held", "the gate refused it: labels are where they were"),
    FAILED: ("failed", "labels are where they were; the next run goes on where it stopped"),
    NOTHING_TO_DO: ("nothing to do", "what is served is what would be made again"),
}


def write_report(folder: Path, state: RunState, runs: Sequence[Path]) -> str:
    """Write the page of a run.

    Args:
        folder: The run's.
        state: How it ended.
        runs: The teacher's and the student's run, as far as there are any.

    Returns:
        What was done, in words.
    """
    sections = [_steps(state, folder), *([_gate(state)] if state.gate else []), *_quality(runs)]
    title = f"{state.job}: {SAID.get(state.outcome, (state.outcome, ''))[0]}"
    about = f"Run {state.run} of job {state.job}, by {state.spec}; {state.started} to {state.ended or 'now'}."
    page = render_sections(sections, title, about, _cards(state))
    write_file(folder / REPORT_FILE, page.encode())
    return "report"


def _cards(state: RunState) -> list[tuple[str, str, str]]:
    cards = [("outcome", *SAID.get(state.outcome, (state.outcome, "")))]
    if state.published is not None:
        cards.append(("version", state.published["version"], f"of model {state.published['model']}"))
    for metric in (NDCG, RECALL):
        student, teacher = state.quality.get(metric), state.quality.get(f"teacher {metric}")
        if student is not None and teacher:
            cards.append((f"kept of {metric}", f"{student / teacher:.1%}", f"{student:.4f}; the teacher {teacher:.4f}"))
    worked = sum(step.seconds or 0.0 for step in state.steps if not step.reused)
    cards.append(("took", say_seconds(worked), "steps that were reused left out"))
    return cards


def _steps(state: RunState, folder: Path) -> Section:
    lead = "What was done, in order. A step is reused where neither its inputs nor its settings have changed."
    rows = [_step_row(step) for step in state.steps]
    parts: list[Table | Text] = [Table("", ["step", "what came out", "outcome", "took"], rows, words=2, stacks=True)]
    if state.candidate is not None:
        manifest = Path(os.path.relpath(Path(state.candidate) / MANIFEST_FILE, folder)).as_posix()
        what = "The version" if state.published else "The bundle, which is not published"
        parts.append(Table(what, ["bundle"], [[Cell(state.candidate, link=manifest)]]))
    if state.error is not None:
        parts.append(Text(f"It failed: {state.error}"))
    parts += [Text(f"Warning: {warning}") for warning in state.warnings]
    return Section("steps", "Steps", lead, parts)


def _step_row(step: StepState) -> Row:
    emphasis = "worse" if step.outcome in {FAILED, HELD} else ""
    took = NOTHING if step.seconds is None else say_seconds(step.seconds)
    return [step.name, step.says or NOTHING, Cell("reused" if step.reused else step.outcome, emphasis), took]


def _gate(state: RunState) -> Section:
    lead = (
        "What a new version must be before the label moves to it. Shares are of the teacher's quality, of the labelled "
        "version's quality, or of its users and items; bounds are those of [gate] in the spec, where each may be "
        "changed or turned off."
    )
    rows = [_gate_row(row) for row in state.gate]
    header = ["check", "what was found, and where to look", "measured", "bound", "verdict"]
    return Section("gate", "Gate", lead, [Table("", header, rows, words=2, stacks=True)])


def _gate_row(row: GateRow) -> Row:
    verdict = "off" if row.bound is None else ("passed" if row.passed else "held")
    numbers = [NOTHING if value is None else f"{value:.4g}" for value in (row.measured, row.bound)]
    return [row.check, row.look, *numbers, Cell(verdict, {"passed": "better", "held": "worse"}.get(verdict, ""))]


def _quality(runs: Sequence[Path]) -> list[Section | LeftOut]:
    if not runs:
        return []
    material = gather(list(runs))
    return [build_quality(material), build_learning(material)]
