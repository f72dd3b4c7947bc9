"""A circuit breaker: who keeps failing is left alone for a while, then asked once, and again by all when that succeeds.

Of the libraries, pybreaker holds its lock during the call, so that calls go one at a time, and circuitbreaker has none.

References:
    Nygard, "Release It!", 2nd edition, 2018, chapter 5.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic


class Breaker:
    """Counts failures in a row. Thread-safe.

    Args:
        failures: So many in a row open it.
        pause: How long it stays open before one call may try, in seconds.
        clock: Monotonic, in seconds.
    """

    def __init__(self, failures: int = 5, pause: float = 1.0, clock: Callable[[], float] = monotonic) -> None:
        self._most = failures
        self._pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0
        self._shut_until = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, but for one that tries after each pause."""
        return self._failed >= self._most

    def enter(self) -> float:
        """Ask whether a call may be made; one that may ends with `succeeded`, `failed` or `undecided`.

        Returns:
            0 where it may, else the seconds until one may try.
        """
        if not self.is_open:
            return 0.0
        with self._lock:
            left = self._shut_until - self._clock()
            if self.is_open and left > 0:
                return left
            # Half open: the others wait for what this one finds, or, should it never end, another pause.
            self._shut_until = self._clock() + self._pause
            return 0.0

    def succeeded(self) -> None:
        """A call was answered."""
        if self._failed:
            with self._lock:
                self._failed = 0

    def failed(self) -> None:
        """A call was not."""
        with self._lock:
            self._failed += 1
            self._shut_until = self._clock() + self._pause

    def undecided(self) -> None:
        """A call ended before anything was known: the next one may try at once."""
        with self._lock:
            self._shut_until = self._clock()
