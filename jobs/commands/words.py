"""A run in words: the table of its steps, the table of its gate, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from tabulate import tabulate

from jobs.estimate import say_estimate, say_seconds
from jobs.record.folder import JobFolder
from jobs.record.state import RUNNING, STEPS, GateRow, RunState

NOTHING = "–"


def describe_run(state: RunState) -> str:
    """A run: how it ended, its steps, its gate."""
    ended = f", ended {state.ended}" if state.ended else ""
    lines = [
        f"job {state.job}, run {state.run}: {state.outcome}; started {state.started}{ended}",
        describe_steps(state),
    ]
    if state.gate:
        lines.append(describe_gate(state.gate))
    if state.published:
        lines.append(f"published {state.published['model']} version {state.published['version']}")
    elif state.candidate:
        lines.append(f"bundle {state.candidate}")
    if state.error:
        lines.append(f"error: {state.error}")
    return "\n\n".join([*lines, *(f"warning: {warning}" for warning in state.warnings)])


def describe_steps(state: RunState) -> str:
    """A line a step."""
    rows = [
        [
            step.name,
            "reused" if step.reused else step.outcome,
            NOTHING if step.seconds is None else say_seconds(step.seconds),
            step.says or NOTHING,
        ]
        for step in state.steps
    ]
    return _table(rows, ["step", "outcome", "took", "what came out"])


def describe_gate(gate: list[GateRow]) -> str:
    """A line a check."""
    rows = [
        [
            row.check,
            *(NOTHING if value is None else f"{value:.4g}" for value in (row.measured, row.bound)),
            "off" if row.bound is None else ("passed" if row.passed else "HELD"),
            row.look,
        ]
        for row in gate
    ]
    return _table(rows, ["check", "measured", "bound", "verdict", "what was found, and where to look"])


def describe_progress(folder: JobFolder, state: RunState, times: Mapping[str, float]) -> str:
    """Where a job stands now, in a line or two."""
    if not folder.is_locked():
        if state.outcome == RUNNING:
            where = "before its first step" if state.current is None else f"in step {state.current.name}"
            return f"nobody runs it: the run was cut off {where}; 'lowpass job run' goes on with it"
        return "nobody runs it"
    says = f"run by {folder.holder()}"
    step = state.current
    if step is None or step.started is None:
        return says
    spent = (datetime.now(UTC) - datetime.fromisoformat(step.started)).total_seconds()
    left = say_estimate(STEPS[STEPS.index(step.name) :], times)
    usual = f", {say_seconds(times[step.name])} the last time" if step.name in times else ""
    return f"{says}; step {step.name} for {say_seconds(spent)}{usual}{'; from its beginning ' + left if left else ''}"


def _table(rows: list[list[str]], header: list[str]) -> str:
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True)
