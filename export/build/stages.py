"""What takes long in an export, told as it ends: on large data somebody waits, and wants to know for what."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

TOLD_SECONDS = 5.0
"""What is quicker is not told: a small export stays silent."""


@contextmanager
def stage(what: str) -> Iterator[None]:
    """Say on stderr how long the block took, where it was long; bars inside it say meanwhile how long it will."""
    wall, work = time.perf_counter(), time.process_time()
    yield
    seconds = time.perf_counter() - wall
    if seconds >= TOLD_SECONDS:
        tqdm.write(f"{what}: {seconds:.0f} s, {time.process_time() - work:.0f} s of a processor", file=sys.stderr)
