"""Commands as processes of their own, on one core, with what they took."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOWPASS = (sys.executable, "-m", "lowpass")
ROOT = Path(__file__).resolve().parents[3]


class CommandFailed(Exception):
    """A command ended with another code than 0, or took too long."""


@dataclass(frozen=True)
class Took:
    """What a command took, with all that it started and waited for.

    Attributes:
        processor_seconds: User and system.
        seconds: By the clock.
        peak_bytes: Most memory that one process had resident at once.
        output: What it printed.
    """

    processor_seconds: float
    seconds: float
    peak_bytes: int
    output: str

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON object that it printed."""
        found: dict[str, Any] = json.loads(self.output)
        return found


def one_core(core: int | None) -> list[str]:
    """Words that keep what follows on a core; none where there is none to keep to."""
    return [] if core is None else ["taskset", "--cpu-list", str(core)]


def cores() -> list[int]:
    """Return those that this process may use."""
    return sorted(os.sched_getaffinity(0))


def run(words: Sequence[str], log: Path, *, core: int | None, limit: float) -> Took:
    """Run a command to its end.

    Args:
        words: The command.
        log: File for what it says on stderr.
        core: To keep it on; None for any.
        limit: Seconds by the clock, after which it is killed with all it started.

    Raises:
        CommandFailed: It failed, or ran into the limit.
    """
    started = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    printed = log.with_suffix(".out")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("w") as errors, printed.open("w") as output:
        process = subprocess.Popen(
            [*one_core(core), *words], stdout=output, stderr=errors, env=environment, start_new_session=True
        )
        alarm = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        alarm.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            alarm.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - started
    if process.returncode:
        reason = f"stopped after {limit:g} s" if seconds >= limit else f"exit code {process.returncode}"
        last = log.read_text(errors="replace").replace("\r", "\n").strip().splitlines()[-1:]
        raise CommandFailed(f"{reason}: {' '.join(words[-12:])}; {''.join(last)} ({log})")
    return Took(usage.ru_utime + usage.ru_stime, seconds, usage.ru_maxrss * 1024, printed.read_text())
