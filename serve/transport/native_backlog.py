"""Admitted calls on their way to a worker: what waits is the next batch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from serve.answers.call import Call

BATCH_AT_MOST = 64


@dataclass(slots=True)
class Pending:
    """An admitted call.

    Args:
        call_id: Of the front.
        method: Its number.
        payload: The request as received.
        call: What the services see of it.
    """

    call_id: int
    method: int
    payload: bytes
    call: Call


class Backlog:
    """Calls that wait, and how many workers are at work; thread-safe.

    Args:
        workers: Threads that work at a time.
        answers_many: Whether a method's calls may be answered together.
    """

    def __init__(self, workers: int, answers_many: Callable[[int], bool]) -> None:
        self._workers = workers
        self._answers_many = answers_many
        self._waiting: deque[Pending] = deque()
        self._working = 0
        self._lock = threading.Lock()

    def add(self, calls: Iterable[Pending]) -> None:
        """Let calls wait."""
        self._waiting.extend(calls)

    def begin(self) -> list[Pending]:
        """A batch for a worker who was idle; empty where nothing waits, or all workers are at work."""
        with self._lock:
            batch = self._take() if self._working < self._workers else []
            self._working += bool(batch)
            return batch

    def go_on(self) -> list[Pending]:
        """The next batch for a worker who has finished one; empty, and the worker is idle, where nothing waits."""
        with self._lock:
            batch = self._take()
            self._working -= not batch
            return batch

    def end(self) -> None:
        """A worker is idle."""
        with self._lock:
            self._working -= 1

    def _take(self) -> list[Pending]:
        if not self._waiting:
            return []
        batch = [self._waiting.popleft()]
        first = batch[0].method
        if self._answers_many(first):
            while self._waiting and self._waiting[0].method == first and len(batch) < BATCH_AT_MOST:
                batch.append(self._waiting.popleft())
        return batch
