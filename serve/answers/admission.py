"""Who may come in, and for how long: bounded admission and deadlines. No transport, no clock but the monotonic one."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum
from time import monotonic, sleep

from serve.answers.errors import DeadlineExpired, NotReady, Overloaded, RequestError, ShuttingDown

SMOOTHING = 0.05
"""Weight of the latest departure in the moving average of the time between two."""


class _Phase(Enum):
    LOADING = "loading"
    OPEN = "open"
    CLOSED = "closed"


class Admission:
    """Counts the requests in work or waiting, and refuses more than the bound, and who would wait too long.

    The wait of a newcomer is estimated by Little's law: those before it, times the time between two departures while
    all threads are at work. Where none departs for long, each thread's request lasts that long at least, and so the
    time between two departures is no less than that, divided by the number of threads.

    Args:
        max_in_flight: The bound.
        retry_after: What a refused caller is told to wait at least, in seconds.
        max_wait: Longest expected wait of a request that is admitted, in seconds; 0 for no bound.
        threads: Requests that are worked on at a time.
    """

    def __init__(
        self, max_in_flight: int, retry_after: float = 0.05, *, max_wait: float = 0.0, threads: int = 1
    ) -> None:
        self._max_in_flight = max_in_flight
        self._retry_after = retry_after
        self._full = Overloaded(retry_after)
        self._max_wait = max_wait
        self._threads = threads
        self._in_flight = 0
        self._gap = 0.0
        self._busy_since = monotonic()
        self._phase = _Phase.LOADING
        self._lock = threading.Lock()

    @property
    def in_flight(self) -> int:
        """Requests in work or waiting."""
        return self._in_flight

    def open(self) -> None:
        """Begin to admit."""
        self._phase = _Phase.OPEN

    def close(self) -> None:
        """Admit nothing more; what is in flight goes on."""
        self._phase = _Phase.CLOSED

    def refusal(self) -> RequestError | None:
        """Why a request arriving now is not admitted, or None when it is."""
        if self._phase is _Phase.OPEN:
            if self._in_flight >= self._max_in_flight:
                return self._full
            excess = self.expected_wait - self._max_wait
            return Overloaded(max(self._retry_after, excess)) if self._max_wait and excess > 0 else None
        if self._phase is _Phase.LOADING:
            return NotReady("the server still loads its models: try again soon")
        return ShuttingDown("the server is shutting down: ask another one")

    @property
    def expected_wait(self) -> float:
        """How long a request arriving now would wait for a thread, in seconds."""
        in_flight = self._in_flight
        if in_flight < self._threads:
            return 0.0
        return in_flight * max(self._gap, self.standstill / self._threads)

    @property
    def standstill(self) -> float:
        """How long all threads have been at the same calls, in seconds; 0 while one is free."""
        return monotonic() - self._busy_since if self._in_flight >= self._threads else 0.0

    def enter(self) -> None:
        """Count one admitted request."""
        with self._lock:
            self._in_flight += 1
            if self._in_flight == self._threads:
                self._busy_since = monotonic()

    def leave(self) -> None:
        """Count it no longer."""
        now = monotonic()
        with self._lock:
            if self._in_flight >= self._threads:
                gap = now - self._busy_since
                self._gap = gap if self._gap == 0.0 else self._gap + SMOOTHING * (gap - self._gap)
                self._busy_since = now
            self._in_flight -= 1

    def wait_empty(self, timeout: float) -> bool:
        """Wait until nothing is in flight.

        Args:
            timeout: At most this long, in seconds.

        Returns:
            Whether nothing is.
        """
        give_up = monotonic() + timeout
        while self._in_flight > 0:
            if monotonic() >= give_up:
                return False
            sleep(0.005)
        return True


@dataclass(frozen=True, slots=True)
class Deadline:
    """When a request must have its answer.

    Args:
        at: On the monotonic clock, in seconds.
    """

    at: float

    @classmethod
    def of(cls, arrival: float, maximum: float, remaining: float | None) -> Deadline:
        """The earlier of the caller's deadline and the server's.

        Args:
            arrival: When the request arrived, on the monotonic clock.
            maximum: The server's longest time, in seconds.
            remaining: The caller's remaining time; None for no deadline.
        """
        at = arrival + maximum
        return cls(at if remaining is None else min(at, monotonic() + remaining))

    @property
    def expired(self) -> bool:
        """Whether it is past."""
        return monotonic() >= self.at

    @property
    def remaining(self) -> float:
        """Time until then, in seconds; 0 where it is past."""
        return max(0.0, self.at - monotonic())

    def check(self) -> None:
        """Refuse work nobody waits for.

        Raises:
            DeadlineExpired: It is past.
        """
        if self.expired:
            raise DeadlineExpired("no time is left: the request waited or worked past its deadline")
