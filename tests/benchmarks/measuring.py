"""What the benchmarks share: real data, and how much memory was resident at most (Linux, glibc)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from distill.data.interactions import Interactions
from distill.data.prepare import prepare_source
from distill.data.public_sets import CATALOG

REAL_DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def load_real(name: str) -> Interactions:
    """Prepare a set of the catalogue, or skip the benchmark."""
    entry = CATALOG[name]
    source = REAL_DATA / name
    if not source.is_dir():
        pytest.skip(f"no ../shared/data/{name} here")
    return prepare_source(source, entry.options, name=name, format_name=entry.format_name)


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: ratios of single-threaded work mean something on a shared machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def restart_peak_memory() -> float:
    """Give freed memory back (malloc_trim(3)) and let the kernel count the peak anew (proc(5), clear_refs 5).

    Returns:
        MiB resident now; without the trim, what is measured next would live in memory counted here.
    """
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status_mib("VmRSS")


def peak_memory_mib() -> float:
    """The most that was resident at once since the restart."""
    return _status_mib("VmHWM")


def _status_mib(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1]) / 1024
