"""The supervisor with workers that are none, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from serve.process.supervisor import FIRST, HEALTHY, LONGEST, Supervisor, WorkerFailed
from serve.process.worker import Ended, Failed, Ready, Report
from tests.serve.process.fakes import FakeWorker

READY = {"models": ["student:1"], "transport": "grpcio"}


class Stage:
    """Starts fake workers, which do first what they are told to.

    Args:
        count: How many there are.
        at_start: What a worker does when it is started.
    """

    def __init__(self, count: int, at_start: Callable[[FakeWorker], None]) -> None:
        self.now = 1000.0
        self.started: list[FakeWorker] = []
        self.at_start = at_start
        self.supervisor = Supervisor(count, self._start, lambda: self.now)

    def _start(self, number: int, report: Report) -> FakeWorker:
        worker = FakeWorker(number, report, pid=100 + len(self.started))
        self.started.append(worker)
        self.at_start(worker)
        return worker

    def crash(self, worker: FakeWorker) -> None:
        worker.exit_code = -9
        self.supervisor.handle(Ended(worker.number))


def be_ready(worker: FakeWorker) -> None:
    worker.report(Ready(worker.number, READY))


def do_nothing(worker: FakeWorker) -> None:
    pass


def test_one_worker_first_then_the_others_and_ready_when_all_are() -> None:
    stage = Stage(3, be_ready)
    assert stage.supervisor.bring_up() == ""
    assert [worker.number for worker in stage.started] == [0, 1, 2]
    assert stage.supervisor.ready == READY
    assert stage.supervisor.pids == [100, 101, 102]


def test_the_error_of_the_first_worker_ends_the_start_and_no_other_is_tried() -> None:
    def fail(worker: FakeWorker) -> None:
        worker.report(Failed(worker.number, "index.faiss: truncated", 2))

    stage = Stage(3, fail)
    with pytest.raises(WorkerFailed, match=r"index\.faiss: truncated") as caught:
        stage.supervisor.bring_up()
    assert caught.value.exit_code == 2
    assert len(stage.started) == 1


def test_a_worker_that_dies_without_a_word_before_it_was_ready_is_our_fault() -> None:
    stage = Stage(2, lambda worker: worker.report(Ended(worker.number)))
    with pytest.raises(WorkerFailed, match="worker 0 ended before it was ready") as caught:
        stage.supervisor.bring_up()
    assert caught.value.exit_code == 1


def test_a_signal_while_starting_stops_the_start() -> None:
    stage = Stage(2, do_nothing)
    stage.supervisor.tell("SIGTERM")
    assert stage.supervisor.bring_up() == "SIGTERM"
    stage.started[0].exit_code = -15
    assert stage.supervisor.end(within=60.0) is True, "who was not ready had nothing to lose"


def test_a_worker_that_dies_at_once_is_started_ever_more_seldom_and_the_other_left_alone() -> None:
    stage = Stage(2, be_ready)
    stage.supervisor.bring_up()
    stage.at_start = do_nothing
    waits = []
    for _ in range(12):
        stage.crash(next(worker for worker in reversed(stage.started) if worker.number == 0))
        wait = stage.supervisor.start_due()
        assert wait is not None
        waits.append(wait)
        stage.now += wait - 1e-6
        known = len(stage.started)
        stage.supervisor.start_due()
        assert len(stage.started) == known, "not before it is due"
        stage.now += 2e-6
        assert stage.supervisor.start_due() is None
        assert len(stage.started) == known + 1
    assert waits[:4] == pytest.approx([FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST])
    assert waits[-1] == pytest.approx(LONGEST)
    states = stage.supervisor.states()
    assert [state.restarts for state in states] == [12, 0]
    assert states[0].worker is None, "started is not serving"
    assert states[1].worker is stage.started[1]


def test_a_while_of_health_makes_the_next_restart_quick_again() -> None:
    stage = Stage(1, be_ready)
    stage.supervisor.bring_up()
    for served, expected in ((0.0, FIRST), (0.0, 2 * FIRST), (HEALTHY + 1.0, FIRST)):
        stage.now += served
        stage.crash(stage.started[-1])
        assert stage.supervisor.start_due() == pytest.approx(expected)
        stage.now += expected + 1e-6
        stage.supervisor.start_due()
        stage.supervisor.handle(Ready(0, READY))


def test_a_restart_that_cannot_start_is_tried_again() -> None:
    stage = Stage(1, be_ready)
    stage.supervisor.bring_up()
    stage.crash(stage.started[0])
    stage.now += 1.0
    stage.at_start = do_nothing
    stage.supervisor.start_due()
    stage.supervisor.handle(Failed(0, "bundle gone", 2))
    stage.crash(stage.started[1])
    assert stage.supervisor.start_due() == pytest.approx(2 * FIRST)


def test_a_worker_that_ends_while_others_start_is_started_again() -> None:
    def start(worker: FakeWorker) -> None:
        if worker.number == 1:
            stage.supervisor.handle(Ended(0))
            stage.now += 1.0
        be_ready(worker)

    stage = Stage(2, start)
    assert stage.supervisor.bring_up() == ""
    stage.supervisor.start_due()
    assert [worker.number for worker in stage.started] == [0, 1, 0]


def test_a_machine_that_has_no_process_left_is_asked_again_later() -> None:
    def refuse(worker: FakeWorker) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    stage = Stage(1, be_ready)
    stage.supervisor.bring_up()
    stage.crash(stage.started[0])
    stage.now += 1.0
    stage.at_start = refuse
    assert stage.supervisor.start_due() == pytest.approx(2 * FIRST)


def test_stopping_lets_every_worker_drain() -> None:
    stage = Stage(2, be_ready)
    stage.supervisor.bring_up()
    assert stage.supervisor.end(within=60.0) is True
    assert [worker.told for worker in stage.started] == [["terminate"], ["terminate"]]


def test_who_does_not_stop_in_time_is_killed_and_that_is_told() -> None:
    stage = Stage(2, be_ready)
    stage.supervisor.bring_up()
    stage.started[1].is_deaf = True
    assert stage.supervisor.end(within=0.05) is False
    assert [worker.told for worker in stage.started] == [["terminate"], ["terminate", "kill"]]


def test_stopping_while_a_worker_waits_to_be_restarted_waits_for_the_others_only() -> None:
    stage = Stage(2, be_ready)
    stage.supervisor.bring_up()
    stage.crash(stage.started[0])
    assert stage.supervisor.end(within=60.0) is True
    assert stage.started[0].told == []
