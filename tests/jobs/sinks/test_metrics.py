from __future__ import annotations

import shutil
import socket
import subprocess
import urllib.request
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from jobs.record.folder import JobFolder
from jobs.record.state import GateRow, RunState, write_state
from jobs.sinks.metrics import push, write_textfile
from jobs.spec.reading import load_spec
from jobs.spec.sections import JobSpec, MetricsSpec
from tests.jobs.sinks.receiver import receiving
from tests.jobs.toy import write_job
from tests.kits.transport_bench import eventually

PUSHGATEWAY = shutil.which("prometheus-pushgateway") or shutil.which("pushgateway")

HELD = [
    GateRow("kept_ndcg", 0.8, 0.9, passed=False, look="look"),
    GateRow("lost_users", None, 0.05, passed=True, look="no version"),
    GateRow("p99_ms", None, None, passed=True, look="off"),
]
Series = dict[str, float]


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return load_spec(write_job(tmp_path, more='[metrics]\ntextfile = "toy.prom"\n'))


def add_run(spec: JobSpec, day: int, outcome: str, *, took: float = 2.0, gate: list[GateRow] | None = None) -> RunState:
    when = f"2026-01-0{day}T00:00:00+00:00"
    state = RunState("toy", f"2026010{day}", "job.toml", when, ended=when, outcome=outcome, gate=gate or [])
    step = state.step("teacher")
    step.outcome, step.seconds, step.reused = "done", took, outcome == "nothing-to-do"
    write_state(JobFolder(spec.folder).run_folder(state.run), state)
    return state


def read(text: str) -> Series:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "job_name"}
            assert sample.labels["job_name"] == "toy"
            found[" ".join([sample.name.removeprefix("lowpass_job_"), *labels.values()])] = sample.value
    return found


def written(spec: JobSpec, state: RunState) -> Series:
    assert write_textfile(spec, state, JobFolder(spec.folder)) == "textfile"
    assert spec.metrics.textfile is not None
    assert [path.name for path in spec.metrics.textfile.parent.glob("toy.prom*")] == ["toy.prom"]
    return read(spec.metrics.textfile.read_text())


def unix(day: int) -> float:
    return datetime.fromisoformat(f"2026-01-0{day}T00:00:00+00:00").timestamp()


def test_a_run_that_was_held_keeps_the_last_success(spec: JobSpec) -> None:
    add_run(spec, 1, "published", took=9.0)
    found = written(spec, add_run(spec, 2, "held", gate=HELD))
    assert found["last_success_timestamp_seconds"] == unix(1)
    assert found["last_run_timestamp_seconds"] == unix(2)
    assert {name: found[f"last_outcome {name}"] for name in ("published", "held", "failed")} == {
        "published": 0, "held": 1, "failed": 0,
    }  # fmt: skip
    assert found["step_duration_seconds teacher"] == 2.0
    assert (found["gate_value kept_ndcg"], found["gate_bound kept_ndcg"], found["gate_passed kept_ndcg"]) == (
        0.8,
        0.9,
        0,
    )
    assert found["gate_passed lost_users"] == 1
    assert {name for name in found if "lost_users" in name} == {"gate_passed lost_users", "gate_bound lost_users"}
    assert not [name for name in found if "p99_ms" in name]


def test_nothing_to_do_is_a_success_and_keeps_what_was_measured(spec: JobSpec) -> None:
    add_run(spec, 1, "published", took=9.0, gate=HELD[:1])
    found = written(spec, add_run(spec, 2, "nothing-to-do", took=0.001))
    assert found["last_success_timestamp_seconds"] == unix(2)
    assert found["last_outcome published"] == 1
    assert found["step_duration_seconds teacher"] == 9.0
    assert found["gate_value kept_ndcg"] == 0.8


def test_a_first_run_that_failed_claims_no_success(spec: JobSpec) -> None:
    found = written(spec, add_run(spec, 1, "failed"))
    assert "last_success_timestamp_seconds" not in found
    assert found["last_outcome failed"] == 1


def test_a_gateway_is_sent_the_same_under_the_jobs_name(spec: JobSpec) -> None:
    state = add_run(spec, 1, "published")
    with receiving(lambda request: (200, {})) as gateway:
        pushed = replace(spec, metrics=MetricsSpec(spec.metrics.textfile, gateway.url))
        assert push(pushed, state, JobFolder(spec.folder)) == "Pushgateway"
    (request,) = gateway.requests
    assert (request.method, request.path) == ("PUT", "/metrics/job/lowpass_job/job_name/toy")
    assert read(request.body.decode()) == written(spec, state)


def test_nothing_is_sent_where_nothing_is_asked_for(tmp_path: Path) -> None:
    spec = load_spec(write_job(tmp_path))
    state = add_run(spec, 1, "published")
    assert write_textfile(spec, state, JobFolder(spec.folder)) == push(spec, state, JobFolder(spec.folder)) == ""


def test_a_gateway_that_refuses_is_an_error(spec: JobSpec) -> None:
    state = add_run(spec, 1, "published")
    with receiving(lambda request: (400, {})) as gateway:
        refused = replace(spec, metrics=MetricsSpec(None, gateway.url))
        with pytest.raises(OSError, match="400"):
            push(refused, state, JobFolder(spec.folder))


@pytest.mark.skipif(PUSHGATEWAY is None, reason="no Pushgateway here: apt-get install prometheus-pushgateway")
def test_a_real_pushgateway_takes_it_and_replaces_what_was_there(spec: JobSpec) -> None:
    assert PUSHGATEWAY is not None
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    process = subprocess.Popen([PUSHGATEWAY, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL)
    pushed = replace(spec, metrics=MetricsSpec(None, f"http://{address}"))
    try:
        eventually(lambda: is_ready(address))
        for day, outcome in ((1, "published"), (2, "held")):
            push(pushed, add_run(spec, day, outcome, gate=HELD if outcome == "held" else []), JobFolder(spec.folder))
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            lines = [line for line in answer.read().decode().splitlines() if line.startswith("lowpass_job")]
    finally:
        process.kill()
        process.wait()
    name = 'instance="",job="lowpass_job",job_name="toy"'
    assert f'lowpass_job_last_outcome{{{name},outcome="held"}} 1' in lines
    assert f'lowpass_job_last_outcome{{{name},outcome="published"}} 0' in lines
    assert f'lowpass_job_gate_value{{check="kept_ndcg",{name}}} 0.8' in lines


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
