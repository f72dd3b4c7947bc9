"""`state.json`, where a run stands: replaced by rename, so that whoever looks sees the old one or the new one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distill.storage import write_file
from jobs.errors import UnknownJob

FORMAT = 1
STATE_FILE = "state.json"
STEPS = ("prepare", "teacher", "distill", "export", "gate", "publish", "label", "metrics")
WAITING, RUNNING, DONE, SKIPPED = "waiting", "running", "done", "skipped"
PUBLISHED, HELD, FAILED, NOTHING = "published", "held", "failed", "nothing-to-do"
"""How a run ends; `RUNNING` until then. A step ends `DONE`, `SKIPPED` or `FAILED`, the gate's also `HELD`."""


def now() -> str:
    """UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass
class StepState:
    """A step of a run.

    Attributes:
        name: One of `STEPS`.
        key: SHA-256 (hex) of its inputs and settings; "" before they are known.
        outcome: See `RUNNING` and the others.
        started: When, UTC; None before.
        seconds: How long it took in this run; None before it ends.
        reused: Whether an earlier run had done it.
        says: What came out, in a line.
    """

    name: str
    key: str = ""
    outcome: str = WAITING
    started: str | None = None
    seconds: float | None = None
    reused: bool = False
    says: str = ""


@dataclass
class GateRow:
    """A check of the gate.

    Attributes:
        check: Its name, a field of `GateSpec`.
        measured: What was found; None where there was nothing to measure, or nobody asked.
        bound: What it had to keep; None where it is off.
        passed: Whether it did.
        look: What was found in words, and where it failed what to look at.
    """

    check: str
    measured: float | None
    bound: float | None
    passed: bool
    look: str


@dataclass
class RunState:
    """A run of a job.

    Attributes:
        job: Its name.
        run: The run's folder, named by the time of its start.
        spec: Path of the spec.
        started: UTC, ISO 8601.
        ended: Likewise; None while it runs.
        outcome: See `RUNNING` and the others.
        steps: All of them, in order.
        gate: Its checks; empty before.
        published: {"model", "version"} of what the label was moved to, or None.
        candidate: Path of the bundle that was made, or None.
        error: Why it failed, or None.
        warnings: What went wrong beside the matter.
        quality: Of the candidate, test metrics by name; "teacher " before those of the teacher.
        format: Of this file.
    """

    job: str
    run: str
    spec: str
    started: str
    ended: str | None = None
    outcome: str = RUNNING
    steps: list[StepState] = field(default_factory=lambda: [StepState(name) for name in STEPS])
    gate: list[GateRow] = field(default_factory=list)
    published: dict[str, str] | None = None
    candidate: str | None = None
    error: str | None = None
    warnings: list[str] = field(default_factory=list)
    quality: dict[str, float] = field(default_factory=dict)
    format: int = FORMAT

    def step(self, name: str) -> StepState:
        """The step of that name."""
        return next(step for step in self.steps if step.name == name)

    @property
    def current(self) -> StepState | None:
        """The step at work, or None."""
        return next((step for step in self.steps if step.outcome == RUNNING), None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)


def write_state(folder: Path, state: RunState) -> None:
    """Replace the state of a run."""
    write_file(folder / STATE_FILE, (json.dumps(state.to_dict(), indent=2) + "\n").encode())


def read_state(folder: Path) -> RunState:
    """Read the state of a run.

    Raises:
        UnknownJob: There is none, or it cannot be read.
    """
    path = folder / STATE_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {FORMAT}")
        content["steps"] = [StepState(**_known(StepState, step)) for step in content["steps"]]
        content["gate"] = [GateRow(**_known(GateRow, row)) for row in content["gate"]]
        return RunState(**_known(RunState, content))
    except FileNotFoundError as error:
        raise UnknownJob(
            f"{folder}: no {STATE_FILE} in it; give the folder of a run, or of a job that has run"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnknownJob(f"{path}: unreadable ({error}); remove the run's folder") from error


def _known(kind: type[Any], content: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in content.items() if name in names}
