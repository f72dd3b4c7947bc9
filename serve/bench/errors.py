"""What can keep a load test from giving numbers."""

from __future__ import annotations

from typing import ClassVar


class LoadTestError(Exception):
    """No numbers: a setting is wrong, or nothing was answered; `exit_code` 2 marks it as the user's to mend."""

    exit_code: ClassVar[int] = 2
