from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from serve.answers.admission import Admission, Deadline
from serve.answers.errors import DeadlineExpired, NotReady, Overloaded, ShuttingDown


def test_admits_only_while_open_and_below_the_bound() -> None:
    admission = Admission(max_in_flight=2, retry_after=0.3)
    assert isinstance(admission.refusal(), NotReady)
    admission.open()
    assert admission.refusal() is None
    admission.enter()
    assert admission.refusal() is None
    admission.enter()
    refusal = admission.refusal()
    assert isinstance(refusal, Overloaded)
    assert refusal.retry_after == 0.3
    admission.leave()
    assert admission.refusal() is None
    admission.close()
    assert isinstance(admission.refusal(), ShuttingDown)
    assert admission.in_flight == 1


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("serve.answers.admission.monotonic", lambda: self.now)


def test_who_would_wait_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads, a departure every 0.1 s: the eleventh in line waits a second."""
    clock = Clock(monkeypatch)
    admission = Admission(1000, 0.05, max_wait=1.0, threads=2)
    admission.open()
    for _ in range(10):
        admission.enter()
    for _ in range(200):
        clock.now += 0.1
        admission.leave()
        admission.enter()
    assert admission.expected_wait == pytest.approx(1.0)
    admission.enter()
    refusal = admission.refusal()
    assert isinstance(refusal, Overloaded)
    assert refusal.retry_after == pytest.approx(0.1)
    admission.leave()
    admission.leave()
    assert admission.refusal() is None


def test_a_pause_does_not_count_as_slowness_and_a_slow_time_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    admission = Admission(1000, max_wait=1.0, threads=2)
    admission.open()
    for _ in range(20):
        clock.now += 60.0
        admission.enter()
        admission.enter()
        clock.now += 0.01
        admission.leave()
        admission.leave()
    admission.enter()
    admission.enter()
    assert admission.expected_wait < 0.1
    for _ in range(3):
        clock.now += 20.0
        admission.leave()
        admission.enter()
    assert isinstance(admission.refusal(), Overloaded), "a slow time is seen"
    admission.leave()
    assert admission.refusal() is None, "a free thread is never refused"
    for _ in range(200):
        admission.enter()
        clock.now += 0.01
        admission.leave()
    admission.enter()
    assert admission.refusal() is None


def test_while_nothing_finishes_newcomers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads whose calls never end: after 0.2 s each of those before takes a tenth of a second at least."""
    clock = Clock(monkeypatch)
    admission = Admission(1000, max_wait=1.0, threads=2)
    admission.open()
    for _ in range(9):
        assert admission.refusal() is None, "nothing is known yet"
        admission.enter()
    clock.now += 0.2
    assert admission.expected_wait == pytest.approx(0.9)
    assert admission.refusal() is None
    clock.now += 0.1
    refusal = admission.refusal()
    assert isinstance(refusal, Overloaded)
    assert refusal.retry_after == pytest.approx(0.35)
    for _ in range(7):
        admission.leave()
    assert admission.refusal() is None
    clock.now += 1.1
    assert isinstance(admission.refusal(), Overloaded), "the two at work are enough"
    admission.leave()
    assert admission.refusal() is None, "a free thread is never refused"


def test_threads_that_work_beside_each_other_do_not_look_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four calls at once that last almost as long as anybody may wait."""
    clock = Clock(monkeypatch)
    admission = Admission(1000, max_wait=1.0, threads=4)
    admission.open()
    for _ in range(4):
        admission.enter()
    clock.now += 0.9
    assert admission.refusal() is None
    clock.now += 0.2
    assert isinstance(admission.refusal(), Overloaded)


def test_counts_right_from_many_threads() -> None:
    admission = Admission(1)

    def come_and_go() -> None:
        for _ in range(2000):
            admission.enter()
            admission.leave()

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(come_and_go)
    assert admission.in_flight == 0


def test_waits_until_empty_or_not() -> None:
    admission = Admission(5)
    assert admission.wait_empty(0.0)
    admission.enter()
    started = monotonic()
    assert not admission.wait_empty(0.05)
    assert monotonic() - started >= 0.05
    threading.Timer(0.05, admission.leave).start()
    assert admission.wait_empty(5.0)


def test_the_earlier_deadline_counts() -> None:
    now = monotonic()
    assert Deadline.of(now, 10.0, None).at == now + 10.0
    assert Deadline.of(now, 10.0, 60.0).at == now + 10.0
    assert now + 1.0 <= Deadline.of(now, 10.0, 1.0).at < now + 1.5


def test_a_past_deadline_refuses() -> None:
    Deadline(monotonic() + 60).check()
    with pytest.raises(DeadlineExpired, match="no time is left"):
        Deadline(monotonic() - 0.001).check()


def test_a_standstill_is_as_long_as_nothing_departs_from_busy_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    admission = Admission(10, threads=2)
    admission.enter()
    clock.now += 5.0
    assert admission.standstill == 0.0, "a thread is free"
    admission.enter()
    clock.now += 7.0
    assert admission.standstill == pytest.approx(7.0)
    admission.enter()
    admission.leave()
    assert admission.standstill == pytest.approx(0.0), "one has departed"
