from __future__ import annotations

import platform
import resource

import torch

from distill.training.trainer import keep_freed_memory


def test_memory_that_was_freed_is_taken_again_without_page_faults() -> None:
    told = keep_freed_memory()
    assert told == (platform.libc_ver()[0] == "glibc")
    if not told:
        return
    for _ in range(2):
        torch.zeros(4_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.zeros(4_000_000)
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 20_000, "20 blocks of 16 MB would fault in 80,000 pages; growing the heap once is 4,000"
