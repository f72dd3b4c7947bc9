"""Which processor cores the server and the load get, so that they do not take time from each other."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CorePlan:
    """One core each, or none where that is impossible.

    Args:
        server: Core of the server, or None for any.
        load: Core of the load generator, or None for any.
        note: What a reader of the numbers must know of it.
    """

    server: int | None
    load: int | None
    note: str


def plan_cores() -> CorePlan:
    """Choose among the cores this process may use; two threads of one physical core only where there are no others."""
    if not hasattr(os, "sched_setaffinity"):
        return CorePlan(None, None, "Not pinned: this system cannot bind a process to a core.")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return CorePlan(None, None, "Not pinned: there is one core, which the server and the load generator share.")
    server = cores[0]
    siblings = _siblings(server)
    apart = [core for core in cores[1:] if core not in siblings]
    load = (apart or cores[1:])[0]
    note = f"Server pinned to core {server}, load generator to core {load}."
    if not apart:
        note += " They are two threads of one physical core and slow each other down."
    return CorePlan(server, load, note)


def pin(pid: int, core: int | None) -> None:
    """Bind a process that has just started, and every thread it is going to start, to one core; None: to any."""
    if core is not None:
        os.sched_setaffinity(pid, {core})


def _siblings(core: int) -> Collection[int]:
    """Cores that are threads of the same physical core, from Linux's /sys; only itself where that is not known."""
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    try:
        text = path.read_text(encoding="ascii").strip()
    except OSError:
        return {core}
    siblings: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        siblings.update(range(int(first), int(last or first) + 1))
    return siblings
