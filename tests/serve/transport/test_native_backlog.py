"""What waits, in which batches, and who works."""

from __future__ import annotations

from time import monotonic

from serve.answers.admission import Deadline
from serve.answers.call import Call
from serve.transport.native import BATCH_AT_MOST, Backlog, Pending

MANY, ONE = 0, 1


def pending(number: int, method: int = MANY) -> Pending:
    return Pending(number, method, b"", Call(0, Deadline(monotonic() + 1), lambda: True, 0))


def backlog(threads: int, *calls: Pending) -> Backlog:
    made = Backlog(threads, lambda method: method == MANY)
    made.add(calls)
    return made


def ids(batch: list[Pending]) -> list[int]:
    return [call.call_id for call in batch]


def test_neighbours_that_may_be_answered_together_are_one_batch() -> None:
    made = backlog(9, pending(1), pending(2), pending(3, ONE), pending(4, ONE), pending(5))
    assert [ids(made.begin()) for _ in range(5)] == [[1, 2], [3], [4], [5], []]


def test_a_batch_is_bounded() -> None:
    made = backlog(9, *map(pending, range(BATCH_AT_MOST + 1)))
    assert ids(made.begin()) == list(range(BATCH_AT_MOST))
    assert ids(made.begin()) == [BATCH_AT_MOST]


def test_no_more_threads_than_there_are() -> None:
    made = backlog(1, pending(1, ONE), pending(2, ONE), pending(3, ONE))
    assert ids(made.begin()) == [1]
    assert made.begin() == [], "the only thread is at work"
    assert ids(made.go_on()) == [2]
    made.end()
    assert ids(made.begin()) == [3]
    assert made.go_on() == []
    made.add([pending(4)])
    assert ids(made.begin()) == [4], "idle again"
