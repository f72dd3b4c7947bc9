"""The error of this package."""

from __future__ import annotations

from typing import ClassVar


class BenchError(Exception):
    """There are no numbers: a setting is wrong, nothing was answered, or a child process failed."""

    exit_code: ClassVar[int] = 2
