"""`log.jsonl`: what happened in a run, a JSON object a line; and the same in words for whoever waits."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jobs.record.state import now

LOG_FILE = "log.jsonl"


class RunLog:
    """The log of a run; a run that goes on adds to it.

    Args:
        folder: The run's.
        shown: Whether its words go to stderr too.
    """

    def __init__(self, folder: Path, *, shown: bool = True) -> None:
        self._path = folder / LOG_FILE
        self._shown = shown

    def write(self, event: str, says: str, more: Mapping[str, Any] | None = None) -> None:
        """Add a line.

        Args:
            event: What kind of thing happened, e.g. "step-done".
            says: In words.
            more: Further fields.
        """
        line = json.dumps({"time": now(), "event": event, "says": says, **(more or {})}) + "\n"
        # One write of one line: a process that is killed leaves whole lines.
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)
        if self._shown:
            tqdm.write(says, file=sys.stderr)
