"""What a step made, kept under its key; `step.json`, written last, marks it as whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from distill.storage import write_file
from jobs.record.folder import step_folder

RESULT_FILE = "step.json"


@dataclass(frozen=True)
class Result:
    """What a step made.

    Attributes:
        step: Name of the step.
        key: Of its inputs and settings.
        base: The key without the run that it went on from; `key` where it went on from none.
        content: What names what it made: later steps have it in their keys.
        says: What came out, in a line.
        seconds: How long it took.
    """

    step: str
    key: str
    base: str
    content: str
    says: str
    seconds: float


class Results:
    """What the steps of a job have made.

    Args:
        folder: Where it is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, step: str, key: str) -> Path:
        """The folder of what a step makes of that key, whole or not."""
        return self._folder / step_folder(step, key)

    def find(self, step: str, key: str) -> Result | None:
        """What a step has made of that key, or None."""
        try:
            result = Result(**json.loads((self.place(step, key) / RESULT_FILE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return result if result.key == key else None

    def finish(self, result: Result) -> None:
        """Mark what a step made as whole."""
        write_file(self.place(result.step, result.key) / RESULT_FILE, (json.dumps(asdict(result)) + "\n").encode())
