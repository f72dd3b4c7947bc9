"""Whether a process is still there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

ENDS_WITHIN = 60.0
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def is_alive(pid: int) -> bool:
    """A zombie has ended: nobody in a container may be there to collect it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def assert_ends(pid: int) -> None:
    """Wait for a process that is about to end."""
    give_up = time.monotonic() + ENDS_WITHIN
    while is_alive(pid):
        assert time.monotonic() < give_up, f"process {pid} is still there"
        time.sleep(0.1)
