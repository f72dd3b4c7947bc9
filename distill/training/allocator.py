"""Keeping freed memory: a training step frees and takes the same megabytes over and over.

glibc gives large blocks back to the kernel when they are freed, so the next step's tensors fault in page by page: a
gather of 8.8 MB then costs several times its copy. Raising the two thresholds keeps the pages.
"""

from __future__ import annotations

import ctypes
import platform

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_THRESHOLD = 2**30
_TRIM_THRESHOLD = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep what is freed (mallopt(3)); the peak does not change.

    Returns:
        Whether it was told; elsewhere than on glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD) and mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD))
