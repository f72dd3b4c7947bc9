"""Metrics of a job for Prometheus: into a file for the node exporter, to a Pushgateway, or both."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway, write_to_textfile

from jobs.estimate import last_times
from jobs.record.folder import JobFolder
from jobs.record.state import FAILED, HELD, NOTHING, PUBLISHED, RunState
from jobs.spec.sections import JobSpec

OUTCOMES = (PUBLISHED, HELD, FAILED)
PUSH_SECONDS = 10.0
PUSH_JOB = "lowpass_job"


def write_textfile(spec: JobSpec, state: RunState, folder: JobFolder) -> str:
    """Write the series into the file of the spec, by a temporary one and a rename.

    Args:
        spec: Of the job.
        state: Of the run, which has ended.
        folder: The job's, for what earlier runs did.

    Returns:
        What was done, in words; "" where nothing was asked for.

    Raises:
        OSError: It cannot be written.
    """
    if spec.metrics.textfile is None:
        return ""
    write_to_textfile(str(spec.metrics.textfile), build_registry(state, folder))
    return "textfile"


def push(spec: JobSpec, state: RunState, folder: JobFolder) -> str:
    """Push the series to the Pushgateway of the spec, in the place of those that the job's last run pushed.

    Args:
        spec: As of `write_textfile`, so are the others, and what is returned.

    Raises:
        OSError: The gateway does not answer, or refuses.
    """
    if spec.metrics.pushgateway is None:
        return ""
    grouping = {"job_name": spec.name}
    registry = build_registry(state, folder)
    push_to_gateway(spec.metrics.pushgateway, PUSH_JOB, registry, grouping, timeout=PUSH_SECONDS)
    return "Pushgateway"


def build_registry(state: RunState, folder: JobFolder) -> CollectorRegistry:
    """The series of a job after a run.

    A run with nothing to do is a success, and counts as published: what it would publish is.

    Args:
        state: Of the run, which has ended.
        folder: The job's: of what this run did not do, the last one that did is told.
    """
    registry = CollectorRegistry()
    outcome = PUBLISHED if state.outcome == NOTHING else state.outcome
    earlier = [state, *(other for other in folder.states() if other.run != state.run)]
    succeeded = next((other for other in earlier if other.outcome in {PUBLISHED, NOTHING}), None)

    def gauge(name: str, says: str, values: Mapping[Any, float], labels: tuple[str, ...] = ()) -> None:
        made: Any = Gauge(f"lowpass_job_{name}", says, ("job_name", *labels), registry=registry)
        for label_values, value in values.items():
            made.labels(state.job, *label_values).set(value)

    times: dict[tuple[str, ...], float] = (
        {} if succeeded is None or succeeded.ended is None else {(): _unix(succeeded.ended)}
    )
    gauge("last_success_timestamp_seconds", "When a run last published, or had nothing to do.", times)
    gauge("last_run_timestamp_seconds", "When a run last ended.", {(): _unix(state.ended or state.started)})
    gauge(
        "last_outcome",
        "1 for how the last run ended: published (or nothing to do), held by the gate, or failed.",
        {(name,): float(name == outcome) for name in OUTCOMES},
        ("outcome",),
    )
    gauge(
        "step_duration_seconds",
        "How long a step took, the last time that it was done and not reused.",
        {(step,): seconds for step, seconds in last_times(earlier).items()},
        ("step",),
    )
    rows = next((other.gate for other in earlier if other.gate), [])
    for name, says in (
        ("value", "What the gate measured of the last version that it looked at."),
        ("bound", "The bound that the gate holds it to."),
    ):
        values = {(row.check,): row.measured if name == "value" else row.bound for row in rows}
        gauge(f"gate_{name}", says, {key: value for key, value in values.items() if value is not None}, ("check",))
    passed = {(row.check,): float(row.passed) for row in rows if row.bound is not None}
    gauge("gate_passed", "1 where the last version kept within the bound, else 0.", passed, ("check",))
    return registry


def _unix(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()
