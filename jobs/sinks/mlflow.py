"""MLflow, as a place where runs are recorded: its REST interface over the standard library.

The client, mlflow-skinny, would bring sixteen packages for six calls, and holds cachetools below 8, which pymilvus
has here. What is spoken is documented at mlflow.org/docs/latest/rest-api.html; artifacts go through the tracking
server, which serves them by default.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jobs.record.state import FAILED, RunState
from jobs.report import REPORT_FILE
from jobs.spec.sections import JobSpec, ModelSpec

API = "api/2.0/mlflow"
ARTIFACTS = "api/2.0/mlflow-artifacts/artifacts"
PROXIED = "mlflow-artifacts:"
TOKEN = "MLFLOW_TRACKING_TOKEN"  # noqa: S105 - the variable's name, MLflow's own
SECONDS = 10.0
MOST_PARAMS, MOST_TEXT = 100, 500
"""Of a batch, and characters of a value."""


def record_run(spec: JobSpec, state: RunState, folder: Path) -> str:
    """Record a run: parameters, metrics, and the report as an artifact.

    Args:
        spec: Of the job.
        state: Of the run, which has ended.
        folder: The run's.

    Returns:
        What was done, in words; "" where nothing was asked for.

    Raises:
        OSError: The server does not answer, or refuses.
    """
    if spec.mlflow is None:
        return ""
    server = _Server(spec.mlflow.uri)
    experiment = server.find_experiment(spec.mlflow.experiment or spec.name)
    made = server.post(
        "runs/create",
        {"experiment_id": experiment, "run_name": state.run, "start_time": _milliseconds(state.started)},
    )["run"]["info"]
    server.post(
        "runs/log-batch",
        {
            "run_id": made["run_id"],
            "params": [{"key": key, "value": value} for key, value in _parameters(spec).items()],
            "metrics": [
                {"key": key, "value": value, "timestamp": _milliseconds(state.ended or state.started), "step": 0}
                for key, value in _measured(state).items()
            ],
            "tags": [{"key": f"lowpass.{key}", "value": value} for key, value in _tags(state).items()],
        },
    )
    server.put_artifact(made["artifact_uri"], folder / REPORT_FILE)
    status = "FAILED" if state.outcome == FAILED else "FINISHED"
    ended = _milliseconds(state.ended or state.started)
    server.post("runs/update", {"run_id": made["run_id"], "status": status, "end_time": ended})
    return "MLflow"


class _Server:
    """An MLflow tracking server."""

    def __init__(self, uri: str) -> None:
        self._uri = uri.rstrip("/")

    def find_experiment(self, name: str) -> str:
        try:
            found = self._ask(f"{API}/experiments/get-by-name?{urlencode({'experiment_name': name})}")
        except FileNotFoundError:
            return str(self.post("experiments/create", {"name": name})["experiment_id"])
        return str(found["experiment"]["experiment_id"])

    def post(self, path: str, content: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask(f"{API}/{path}", json.dumps(content).encode(), "POST")

    def put_artifact(self, root: str, file: Path) -> None:
        if not root.startswith(PROXIED):
            raise OSError(f"{self._uri}: keeps artifacts at {root.partition(':')[0]}, not by HTTP: --serve-artifacts")
        place = root.removeprefix(PROXIED).lstrip("/")
        self._ask(f"{ARTIFACTS}/{quote(place)}/{file.name}", file.read_bytes(), "PUT", kind="text/html")

    def _ask(
        self, path: str, content: bytes | None = None, method: str = "GET", *, kind: str = "application/json"
    ) -> dict[str, Any]:
        headers = {"Content-Type": kind}
        if token := os.environ.get(TOKEN):
            headers["Authorization"] = f"Bearer {token}"
        request = urllib.request.Request(f"{self._uri}/{path}", content, headers, method=method)  # noqa: S310 - checked
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - http or https, by the spec
                found: dict[str, Any] = json.loads(answer.read() or b"{}")
                return found
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(MOST_TEXT).decode(errors="replace").strip()
            kind_of = FileNotFoundError if error.code == 404 else OSError
            raise kind_of(f"{self._uri}/{path.partition('?')[0]}: {error.code} {said}") from None


def _parameters(spec: JobSpec) -> dict[str, str]:
    """Settings of data, models, export and gate by dotted name, all that the spec and the defaults say."""
    flat: dict[str, Any] = {
        **_flatten("data", {**asdict(spec.data.options), "source": spec.data.source}),
        **_model("teacher", spec.teacher),
        **_model("student", spec.student),
        **_flatten("export", asdict(spec.export)),
        **_flatten("gate", vars(spec.gate)),
    }
    return {key: str(value)[:MOST_TEXT] for key, value in list(flat.items())[:MOST_PARAMS]}


def _model(section: str, model: ModelSpec) -> dict[str, Any]:
    if model.imported is not None:
        return _flatten(f"{section}.import", model.imported.files)
    return _flatten(section, {"method": model.method, "backbone": model.backbone, **model.settings})


def _flatten(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{section}.{key}": value for key, value in values.items() if not key.startswith("__")}


def _measured(state: RunState) -> dict[str, float]:
    found = {f"seconds.{step.name}": step.seconds for step in state.steps if step.seconds is not None}
    found |= {f"gate.{row.check}": row.measured for row in state.gate if row.measured is not None}
    # MLflow's names have no '@'.
    return found | {f"test.{name.replace('@', '_at_')}": value for name, value in state.quality.items()}


def _tags(state: RunState) -> dict[str, str]:
    published = state.published or {}
    tags = {"job": state.job, "outcome": state.outcome, "version": published.get("version", "")}
    return {key: value for key, value in tags.items() if value}


def _milliseconds(when: str) -> int:
    return int(datetime.fromisoformat(when).timestamp() * 1000)
