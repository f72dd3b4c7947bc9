"""Whether a process is still there, and whether it runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

ENDS_WITHIN = 60.0
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def is_alive(pid: int) -> bool:
    """A zombie has ended: nobody in a container may be there to collect it."""
    try:
        return _state(Path(f"/proc/{pid}")) != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_stopped(pid: int) -> bool:
    """Whether SIGSTOP has reached every thread; a signal is sent before it acts."""
    return all(_state(thread) == "T" for thread in Path(f"/proc/{pid}/task").iterdir())


def _state(process: Path) -> str:
    """One letter, see proc_pid_stat(5)."""
    return (process / "stat").read_text().rpartition(")")[2].split()[0]


def assert_ends(pid: int) -> None:
    """Wait for a process that is about to end."""
    give_up = time.monotonic() + ENDS_WITHIN
    while is_alive(pid):
        assert time.monotonic() < give_up, f"process {pid} is still there"
        time.sleep(0.1)
