"""How long to wait before a worker that ended is started again."""

from __future__ import annotations

from dataclasses import dataclass, field

FIRST, FACTOR, LONGEST = 0.1, 2.0, 30.0
HEALTHY = 60.0


@dataclass
class Backoff:
    """Doubles with each end in a row, and begins anew after a while of health.

    Args:
        first: Wait after the first end, in seconds.
        factor: Between one wait and the next.
        longest: Wait that is never exceeded, in seconds.
        healthy: Time of serving that makes the ends before it forgotten, in seconds.
    """

    first: float = FIRST
    factor: float = FACTOR
    longest: float = LONGEST
    healthy: float = HEALTHY
    _next: float = field(default=0.0, init=False)

    def after(self, served: float) -> float:
        """The wait in seconds after one more end.

        Args:
            served: How long the worker had served, in seconds; 0 where it never did.
        """
        wait = self.first if served >= self.healthy or not self._next else self._next
        self._next = min(self.longest, wait * self.factor)
        return wait
