"""The supervisor with workers that are none, on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from serve.answers.types import Source
from serve.process.merged_series import DIED, HUNG, MergedSeries, WorkerState, merge
from serve.process.supervisor import FIRST, HEALTHY, LAST_CHANCE, LOADING, LONGEST, Backoff, Supervisor, WorkerFailed
from serve.process.worker import Ended, Failed, Ready, Report
from serve.telemetry.metrics import BUCKETS, Metrics
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
        self.supervisor = Supervisor(count, self._start, lambda: self.now, silent_at_most=10.0)

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
    assert [state.restarts for state in states] == [{DIED: 12}, {}]
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


def look(stage: Stage, seconds: float) -> None:
    """Let time pass, and the supervisor look at its workers in the meantime as often as it wants to."""
    until = stage.now + seconds
    while stage.now < until:
        wait = stage.supervisor.end_hung()
        assert wait is not None
        stage.now += wait


def test_a_worker_that_hangs_is_told_to_end_then_killed_and_started_again() -> None:
    stage = Stage(2, be_ready)
    stage.supervisor.bring_up()
    hung, well = stage.started
    hung.hangs = hung.is_deaf = True
    look(stage, 9.5)
    assert hung.told == []
    look(stage, 2.0)
    assert hung.told == ["terminate"]
    stage.at_start = do_nothing
    look(stage, LAST_CHANCE + 1.0)
    assert hung.told[:2] == ["terminate", "kill"]
    stage.crash(hung)
    stage.now += FIRST + 1e-6
    stage.supervisor.start_due()
    assert [state.restarts for state in stage.supervisor.states()] == [{HUNG: 1}, {}]
    assert well.told == []
    stage.crash(stage.started[-1])
    stage.now += 1.0
    stage.supervisor.start_due()
    assert stage.supervisor.states()[0].restarts == {HUNG: 1, DIED: 1}, "the next one has not hung"


def test_a_worker_that_hangs_again_and_again_is_started_ever_more_seldom() -> None:
    stage = Stage(1, be_ready)
    stage.supervisor.bring_up()
    waits = []
    for _ in range(4):
        stage.started[-1].hangs = True
        look(stage, 12.0)
        assert stage.started[-1].told == ["terminate"]
        stage.supervisor.handle(Ended(0))
        wait = stage.supervisor.start_due()
        assert wait is not None
        waits.append(wait)
        stage.now += wait + 1e-6
        stage.supervisor.start_due()
        stage.supervisor.handle(Ready(0, READY))
    assert waits == pytest.approx([FIRST, 2 * FIRST, 4 * FIRST, 8 * FIRST])


def test_a_worker_that_still_loads_may_be_silent_for_longer() -> None:
    stage = Stage(1, be_ready)
    stage.supervisor.bring_up()
    stage.crash(stage.started[0])
    stage.now += 1.0
    stage.at_start = do_nothing
    stage.supervisor.start_due()
    loading = stage.started[-1]
    loading.hangs = True
    look(stage, LOADING - 2.0)
    assert loading.told == []
    look(stage, 5.0)
    assert loading.told == ["terminate"]


def test_what_the_supervisor_slept_itself_is_no_silence_of_the_workers() -> None:
    stage = Stage(1, be_ready)
    stage.supervisor.bring_up()
    look(stage, 5.0)
    stage.now += 3600.0
    stage.started[0].hangs = True
    stage.supervisor.end_hung()
    assert stage.started[0].told == []
    look(stage, 12.0)
    assert stage.started[0].told[:1] == ["terminate"]


def test_no_worker_is_ended_for_its_silence_where_that_is_not_asked_for() -> None:
    started: list[FakeWorker] = []

    def start(number: int, report: Report) -> FakeWorker:
        started.append(FakeWorker(number, report, pid=1, hangs=True))
        be_ready(started[-1])
        return started[-1]

    now = [0.0]
    supervisor = Supervisor(1, start, lambda: now[0])
    supervisor.bring_up()
    now[0] = 1e6
    assert supervisor.end_hung() is None
    assert started[0].told == []


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


def test_the_wait_doubles_up_to_a_bound() -> None:
    backoff = Backoff(first=0.1, factor=2.0, longest=1.0)
    assert [backoff.after(0.0) for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_a_while_of_health_makes_the_ends_before_it_forgotten() -> None:
    backoff = Backoff(first=0.1, factor=2.0, longest=10.0, healthy=60.0)
    waits = [backoff.after(served) for served in (0.0, 59.0, 61.0, 1.0)]
    assert waits == pytest.approx([0.1, 0.2, 0.1, 0.2])


def text(answers: int) -> str:
    metrics = Metrics(CollectorRegistry())
    for _ in range(answers):
        metrics.request("Recommend", "m", "1", "OK", 0.002)
        metrics.answer("m", Source.PERSONAL)
    return generate_latest(metrics.registry).decode()


def merged(states: list[WorkerState]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(MergedSeries(lambda: states, answer_within=0.0))
    return registry


def worker(said: str | None) -> FakeWorker:
    return FakeWorker(0, lambda event: None, pid=1, text=said)


def test_every_sample_says_whose_it_is_and_nothing_else_changes() -> None:
    (alone,) = [family for family in merge([text(3)]) if family.name == "lowpass_request_duration_seconds"]
    assert alone.type == "histogram"
    assert len(alone.samples) == len(BUCKETS) + 3
    assert {sample.labels["worker"] for sample in alone.samples} == {"0"}
    registry = merged([WorkerState(worker(text(3)), {}), WorkerState(worker(text(5)), {DIED: 2, HUNG: 1})])
    value = registry.get_sample_value
    for number, answers in (("0", 3), ("1", 5)):
        labels = {"worker": number, "method": "Recommend", "model": "m", "version": "1", "code": "OK"}
        assert value("lowpass_request_duration_seconds_count", labels) == answers
        assert value("lowpass_request_duration_seconds_bucket", {**labels, "le": "+Inf"}) == answers
        assert value("lowpass_answers_total", {"worker": number, "model": "m", "source": "personal"}) == answers
    for worker_number, reason, restarts in (("0", "died", 0), ("0", "hung", 0), ("1", "died", 2), ("1", "hung", 1)):
        assert value("lowpass_worker_restarts_total", {"worker": worker_number, "reason": reason}) == restarts


def test_one_family_of_each_name_in_what_is_sent() -> None:
    sent = generate_latest(merged([WorkerState(worker(text(1)), {}), WorkerState(worker(text(1)), {})])).decode()
    types = [line.split()[2] for line in sent.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert "lowpass_answers_total" in types
    assert 'lowpass_answers_total{model="m",source="personal",worker="1"} 1.0' in sent


def test_who_is_dead_or_silent_is_left_out_and_not_up() -> None:
    registry = merged([WorkerState(None, {DIED: 1}), WorkerState(worker(None), {}), WorkerState(worker(text(4)), {})])
    up = [registry.get_sample_value("lowpass_worker_up", {"worker": number}) for number in "012"]
    assert up == [0, 0, 1]
    answers = {
        sample.labels["worker"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "lowpass_answers_total"
    }
    assert answers == {"2": 4}
