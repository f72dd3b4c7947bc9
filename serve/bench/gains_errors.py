"""What can keep a comparison from being made."""

from __future__ import annotations

from typing import ClassVar


class GainsError(Exception):
    """No comparison: the models do not belong together, or a child process failed; `exit_code` 2, the user's."""

    exit_code: ClassVar[int] = 2
