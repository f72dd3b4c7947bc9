"""How many cores this process may use: fewer than the machine has, in a container and under `taskset`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from math import ceil, inf
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
MOUNTED = Path("/sys/fs/cgroup")


def usable_cores(membership: Path = MEMBERSHIP, mounted: Path = MOUNTED) -> float:
    """The least of the affinity and the quotas of the control groups it is in, version 1 or 2; half a core is 0.5.

    Args:
        membership: Which groups those are.
        mounted: Where they are found.
    """
    return min([float(_affinity()), *(_quota(group) for group in _groups(membership, mounted))])


def default_threads() -> int:
    """Of a server: two a core, so that one computes while another waits; from 2, since a stream holds one, to 4."""
    return min(4, max(2, ceil(2 * usable_cores())))


def bound_native_pools() -> None:
    """Let OpenMP, BLAS, Arrow and torch have a thread a core where a quota bounds them: they see the affinity alone."""
    cores = usable_cores()
    if cores < _affinity():
        os.environ.setdefault("OMP_NUM_THREADS", str(ceil(cores)))


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups(membership: Path, mounted: Path) -> Iterator[Path]:
    """Where the quotas of its groups and of all above them are; in a container what is above may not be seen."""
    lines = []
    with suppress(OSError):
        lines = membership.read_text().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", maxsplit=2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        inside = Path(path.lstrip("/"))
        for name in (controllers, "cpu") if controllers else ("", "unified"):
            yield from (mounted / name / group for group in (inside, *inside.parents))


def _quota(group: Path) -> float:
    """Cores' worth of time in a period; infinite without a bound."""
    for name in ("cpu.max", "cpu.cfs_quota_us"):
        with suppress(OSError, ValueError, ZeroDivisionError):
            words = (group / name).read_text().split()
            if len(words) == 1:
                words += (group / "cpu.cfs_period_us").read_text().split()
            if words[0] not in {"max", "-1"}:
                return int(words[0]) / int(words[1])
    return inf
