"""What can keep a load test from giving numbers.

What can keep a comparison from being made.
"""

from __future__ import annotations

from typing import ClassVar


class LoadTestError(Exception):
    """No numbers: a setting is wrong, or nothing was answered; `exit_code` 2 marks it as the user's to mend."""

    exit_code: ClassVar[int] = 2


class GainsError(Exception):
    """No comparison: the models do not belong together, or a child process failed; `exit_code` 2, the user's."""

    exit_code: ClassVar[int] = 2
