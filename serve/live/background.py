"""Work beside requests gives way to them: on the processor, and of the interpreter's lock."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NICENESS = 19
SWITCH_SECONDS = 5e-4
"""A request waits this long for the lock while something long runs in Python; the interpreter's own bound is 5 ms."""


def give_way() -> None:
    """Lower the priority of the calling thread for good."""
    # On Linux this is the niceness of the calling thread alone.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


@contextmanager
def interrupted_often() -> Iterator[None]:
    """While it lasts, whoever holds the interpreter's lock gives it up sooner; for one block at a time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, SWITCH_SECONDS))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
