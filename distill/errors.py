"""Errors a user of the offline jobs can act on.

    DistillError
    ├── DataError       a data file, a field of it or a setting on it is wrong
    ├── RunError        a run directory is missing something or does not fit
    ├── SettingError    a setting is out of range or contradicts another
    └── NotFiniteError  what was computed are not numbers any more

Each message names the file or the setting, what is wrong, and the remedy, in one line.
"""

from __future__ import annotations

from typing import ClassVar


class DistillError(Exception):
    """Root of the user's errors; `exit_code` 2 tells the command line whose fault it is."""

    exit_code: ClassVar[int] = 2


class DataError(DistillError):
    """A data file, one of its fields, or a setting about it is wrong."""


class RunError(DistillError):
    """A run directory is missing, incomplete, or belongs to other data."""


class SettingError(DistillError):
    """A setting is out of range or contradicts another."""


class NotFiniteError(DistillError):
    """What training or scoring computed is NaN, or beyond float32."""
