"""Run a job that is killed at some points, in a process of its own that forks each sitting."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def cut_off(spec: Path, points: list[str]) -> list[dict[str, Any]]:
    """What each sitting left, from a process that forks them."""
    words = [sys.executable, "-m", "tests.jobs.cut_off", str(spec), *points]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]
