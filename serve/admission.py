"""Who may come in, and for how long: bounded admission and deadlines. No transport, no clock but the monotonic one."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from enum import Enum
from time import monotonic, sleep

from serve.errors import DeadlineExpired, NotReady, Overloaded, RequestError, ShuttingDown


class _Phase(Enum):
    LOADING = "loading"
    OPEN = "open"
    CLOSED = "closed"


class Admission:
    """Counts the requests in work or waiting for a worker, and refuses more than the bound.

    Args:
        max_in_flight: The bound.
        retry_after: What a refused caller is told to wait, in seconds.
    """

    def __init__(self, max_in_flight: int, retry_after: float = 0.05) -> None:
        self._max_in_flight = max_in_flight
        self._retry_after = retry_after
        self._in_flight = 0
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
            return Overloaded(self._retry_after) if self._in_flight >= self._max_in_flight else None
        if self._phase is _Phase.LOADING:
            return NotReady("the server still loads its models: try again soon")
        return ShuttingDown("the server is shutting down: ask another one")

    def enter(self) -> None:
        """Count one admitted request."""
        with self._lock:
            self._in_flight += 1

    def leave(self) -> None:
        """Count it no longer."""
        with self._lock:
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
