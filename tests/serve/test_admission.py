from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest

from serve.admission import Admission, Deadline
from serve.errors import DeadlineExpired, NotReady, Overloaded, ShuttingDown


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
