"""Errors that the user of a job can act on.

    JobError
    ├── SpecError        the spec is unreadable, or something in it is wrong
    ├── JobLocked        the job is running already
    ├── UnknownJob       no such job, or no such run of it
    └── NothingToResume  the last run ended by itself

Each message names the file and the field, what is wrong, and the remedy.
"""

from __future__ import annotations

from typing import ClassVar


class JobError(Exception):
    """Root of the tree; `exit_code` 2 tells the command line whose fault it is."""

    exit_code: ClassVar[int] = 2


class SpecError(JobError):
    """The spec is unreadable, or something in it is wrong."""


class JobLocked(JobError):
    """The job is running already."""


class UnknownJob(JobError):
    """No such job, or no such run of it."""


class NothingToResume(JobError):
    """The last run ended by itself."""
