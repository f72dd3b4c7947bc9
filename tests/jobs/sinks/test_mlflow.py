"""MLflow's REST interface, by a server that answers as its documentation says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.record.folder import JobFolder
from jobs.record.state import RunState
from jobs.sinks.mlflow import record_run
from jobs.spec.reading import load_spec
from jobs.spec.sections import JobSpec, MlflowSpec
from tests.jobs.sinks.receiver import Request, receiving

ARTIFACTS = "mlflow-artifacts:/7/abc/artifacts"


def finished(job: Path) -> tuple[JobSpec, RunState, Path]:
    folder = JobFolder(job / "jobs" / "toy")
    state = folder.latest()
    assert state is not None
    return load_spec(job / "job.toml"), state, folder.run_folder(state.run)


def answer(request: Request, *, known: bool, artifacts: str = ARTIFACTS) -> tuple[int, dict[str, Any]]:
    if "get-by-name" in request.path:
        missing = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No experiment"}
        return (200, {"experiment": {"experiment_id": "7"}}) if known else (404, missing)
    if request.path.endswith("experiments/create"):
        return 200, {"experiment_id": "7"}
    if request.path.endswith("runs/create"):
        return 200, {"run": {"info": {"run_id": "abc", "artifact_uri": artifacts}}}
    return 200, {}


@pytest.mark.parametrize("known", [True, False])
def test_a_run_is_recorded_with_settings_measures_and_page(
    finished_job: Path, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "secret")
    spec, state, folder = finished(finished_job)
    with receiving(lambda request: answer(request, known=known)) as server:
        assert record_run(replace(spec, mlflow=MlflowSpec(f"{server.url}/", "night ly")), state, folder) == "MLflow"
    by_path = {request.path.partition("?")[0].removeprefix("/api/2.0/"): request for request in server.requests}
    assert server.requests[0].path.endswith("get-by-name?experiment_name=night+ly")
    assert ("mlflow/experiments/create" in by_path) == (not known)
    assert by_path["mlflow/runs/create"].content["experiment_id"] == "7"
    batch = by_path["mlflow/runs/log-batch"].content
    parameters = {each["key"]: each["value"] for each in batch["params"]}
    assert parameters["student.dim"] == "8"
    assert parameters["data.split"] == "ordered"
    measures = {each["key"]: each["value"] for each in batch["metrics"]}
    assert measures["test.NDCG_at_10"] == state.quality["NDCG@10"]
    assert measures["gate.index_recall"] == 1.0
    assert measures["seconds.teacher"] == state.step("teacher").seconds
    assert {each["key"]: each["value"] for each in batch["tags"]}["lowpass.version"] == "1"
    page = by_path["mlflow-artifacts/artifacts/7/abc/artifacts/report.html"]
    assert (page.method, page.body) == ("PUT", (folder / "report.html").read_bytes())
    assert by_path["mlflow/runs/update"].content["status"] == "FINISHED"
    assert {request.headers["Authorization"] for request in server.requests} == {"Bearer secret"}


def test_a_server_that_refuses_or_keeps_no_artifacts_is_an_error(finished_job: Path) -> None:
    spec, state, folder = finished(finished_job)
    with receiving(lambda request: (403, {"message": "no"})) as server, pytest.raises(OSError, match=r"403 .*no"):
        record_run(replace(spec, mlflow=MlflowSpec(server.url)), state, folder)
    with receiving(lambda request: answer(request, known=True, artifacts="s3://bucket")) as server:  # noqa: SIM117
        with pytest.raises(OSError, match="keeps artifacts at s3, not by HTTP: --serve-artifacts"):
            record_run(replace(spec, mlflow=MlflowSpec(server.url)), state, folder)


def test_nothing_is_recorded_where_nothing_is_asked_for(finished_job: Path) -> None:
    assert record_run(*finished(finished_job)) == ""
