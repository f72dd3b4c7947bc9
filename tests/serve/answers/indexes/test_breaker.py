from __future__ import annotations

import threading

import pytest

from serve.answers.indexes.breaker import Breaker


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(failures=3, pause=2.0, clock=clock)


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.enter() == 0
        breaker.failed()


def test_only_failures_in_a_row_open_it(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert not breaker.is_open
    fail(breaker, 1)
    assert breaker.enter() == pytest.approx(2.0)


def test_one_tries_after_the_pause_and_the_others_wait_for_it(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1.5
    assert breaker.enter() == pytest.approx(0.5)
    clock.now += 0.5
    assert [breaker.enter() for _ in range(3)] == [0.0, 2.0, 2.0]
    breaker.succeeded()
    assert not breaker.is_open
    assert [breaker.enter() for _ in range(3)] == [0.0, 0.0, 0.0]


def test_a_try_that_fails_shuts_it_again_and_one_that_never_ends_does_not_for_ever(
    breaker: Breaker, clock: Clock
) -> None:
    fail(breaker, 3)
    clock.now += 2.0
    assert breaker.enter() == 0
    breaker.failed()
    assert breaker.enter() == pytest.approx(2.0)
    clock.now += 2.0
    assert breaker.enter() == 0  # and is never heard of
    clock.now += 2.0
    assert breaker.enter() == 0


def test_a_try_that_was_cut_short_lets_the_next_one_try(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 2.0
    assert breaker.enter() == 0
    assert breaker.enter() > 0
    breaker.undecided()
    assert breaker.is_open
    assert breaker.enter() == 0


def test_of_many_threads_one_tries(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 2.0
    waits: list[float] = []
    start = threading.Barrier(8)

    def enter() -> None:
        start.wait()
        waits.append(breaker.enter())

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(waits)[:2] == [0.0, 2.0]
