"""What the gate measured of a version that passed, kept: the same against the same is not measured again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from distill.storage import write_file
from jobs.record.state import GateRow
from jobs.steps.results import Result, Results

GATE, GATE_FILE = "gate", "gate.json"


@dataclass(frozen=True)
class Passed:
    """A gate that was passed.

    Attributes:
        rows: Its checks.
        quality: As of `RunState`.
        says: In a line.
    """

    rows: list[GateRow]
    quality: dict[str, float]
    says: str


def keep_passed(results: Results, key: str, passed: Passed, seconds: float) -> None:
    """Keep it under its key."""
    content = {"gate": [asdict(row) for row in passed.rows], "quality": passed.quality}
    write_file(results.place(GATE, key) / GATE_FILE, (json.dumps(content) + "\n").encode())
    results.finish(Result(GATE, key, key, key, passed.says, seconds))


def find_passed(results: Results, key: str) -> Passed | None:
    """What was kept under a key, or None."""
    result = results.find(GATE, key)
    try:
        content = json.loads((results.place(GATE, key) / GATE_FILE).read_text(encoding="utf-8"))
        rows = [GateRow(**row) for row in content["gate"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return None if result is None else Passed(rows, content["quality"], result.says)
