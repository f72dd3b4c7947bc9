"""When to try again what could not be loaded: at once when its files have changed, else ever more rarely."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

FIRST_PAUSE, LONGEST_PAUSE = 10.0, 600.0
"""Between the first two tries, and at most, in seconds; the pause doubles."""

Signature = frozenset[tuple[str, int, int]]


@dataclass(frozen=True)
class _Failure:
    seen: Signature
    pause: float
    retry_at: float


class LoadBackoff:
    """Remembers what failed, by model.

    Args:
        clock: Monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, _Failure] = {}

    def allows(self, name: str, directories: Iterable[Path]) -> bool:
        """Whether to try a model now.

        Args:
            name: The model's.
            directories: What decides over it: its own, with the labels, and the bundles that are to be served.
        """
        failure = self._failures.get(name)
        return failure is None or self._clock() >= failure.retry_at or _signature(directories) != failure.seen

    def failed(self, name: str, directories: Iterable[Path]) -> None:
        """Take note of a failure."""
        before, seen = self._failures.get(name), _signature(directories)
        again = before is not None and before.seen == seen
        pause = min(2 * before.pause, LONGEST_PAUSE) if before is not None and again else FIRST_PAUSE
        self._failures[name] = _Failure(seen, pause, self._clock() + pause)

    def succeeded(self, name: str) -> None:
        """Forget what was."""
        self._failures.pop(name, None)


def _signature(directories: Iterable[Path]) -> Signature:
    """Names, sizes and times of change of what a directory holds; a directory that is not there holds nothing."""
    found = set()
    for directory in directories:
        for path in sorted(directory.glob("*")):
            try:
                status = path.stat()
            except OSError:
                continue
            found.add((str(path), status.st_size, status.st_mtime_ns))
    return frozenset(found)
