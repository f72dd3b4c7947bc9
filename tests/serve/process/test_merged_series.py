from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from serve.answers.types import Source
from serve.process.supervisor import MergedSeries, WorkerState, merge
from serve.telemetry.metrics import BUCKETS, Metrics
from tests.serve.process.fakes import FakeWorker


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
    registry = merged([WorkerState(worker(text(3)), 0), WorkerState(worker(text(5)), 2)])
    value = registry.get_sample_value
    for number, answers in (("0", 3), ("1", 5)):
        labels = {"worker": number, "method": "Recommend", "model": "m", "version": "1", "code": "OK"}
        assert value("lowpass_request_duration_seconds_count", labels) == answers
        assert value("lowpass_request_duration_seconds_bucket", {**labels, "le": "+Inf"}) == answers
        assert value("lowpass_answers_total", {"worker": number, "model": "m", "source": "personal"}) == answers
    assert value("lowpass_worker_restarts_total", {"worker": "1"}) == 2


def test_one_family_of_each_name_in_what_is_sent() -> None:
    sent = generate_latest(merged([WorkerState(worker(text(1)), 0), WorkerState(worker(text(1)), 0)])).decode()
    types = [line.split()[2] for line in sent.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert "lowpass_answers_total" in types
    assert 'lowpass_answers_total{model="m",source="personal",worker="1"} 1.0' in sent


def test_who_is_dead_or_silent_is_left_out_and_not_up() -> None:
    registry = merged([WorkerState(None, 1), WorkerState(worker(None), 0), WorkerState(worker(text(4)), 0)])
    up = [registry.get_sample_value("lowpass_worker_up", {"worker": number}) for number in "012"]
    assert up == [0, 0, 1]
    answers = {
        sample.labels["worker"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "lowpass_answers_total"
    }
    assert answers == {"2": 4}
