"""The dashboards, asked of a real Prometheus that scrapes real servers and a Pushgateway.

Not shown by this: how Grafana draws them. There is no Grafana among the packages that the tests can install.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Gauge, push_to_gateway

from serve.client.errors import RecommenderError
from serve.client.recommender import RecommenderClient
from serve.rpc.credentials import new_key
from tests.kits.authority import Authority
from tests.kits.monitoring import DEPLOY, Prometheus, ask, eventually, needs_prometheus, read_rules, watching
from tests.serve.processes import ServerProcess, serving
from tests.serve.repositories import USERS, publish

ROOT = DEPLOY.parent
PAGES = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))
VALUES = {
    "job": "lowpass",
    "instance": ".*",
    "model": "student",
    "shadow": "teacher",
    "job_name": ".*",
    "__rate_interval": "1m",
}
EMPTY = {
    "lowpass_index_errors_total": "no engine holds the items here",
    "lowpass_index_breaker_open": "likewise",
    "lowpass_wrong_shard_total": "no server here has a shard of the users",
}
"""Series that a healthy server without an engine and without shards does not have; what asks for them shows nothing."""
RECORDED = {str(rule["record"]): str(rule["expr"]) for rule in read_rules("recording.rules.yml")}


def generated(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / script), "--check"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=ROOT)


def expressions() -> list[str]:
    """Every one of the dashboards."""
    found = []
    for page in PAGES:
        panels = json.loads(page.read_text())["panels"]
        found += [target["expr"] for panel in panels for target in panel.get("targets", [])]
    return sorted(set(found))


def substituted(expr: str) -> str:
    """As Grafana would ask it."""
    return re.sub(r"\$(\w+)", lambda found: VALUES[found[1]], expr)


def names(text: str) -> set[str]:
    """The names of our series in an expression, recorded ones left out."""
    return set(re.findall(r"(?<![:\w])lowpass_[a-z_]+(?![:\w])", text))


def family(name: str) -> str:
    """Of a series of a histogram."""
    return re.sub(r"_(bucket|sum|count)$", "", name)


@pytest.mark.parametrize("script", ["deploy/grafana/dashboards.py", "docs/metrics.py"])
def test_what_is_generated_is_fresh(script: str) -> None:
    done = generated(script)
    assert done.returncode == 0, done.stderr


def test_a_dashboard_that_was_changed_by_hand_is_stale(tmp_path: Path) -> None:
    for name in ("dashboards.py", *(f"dashboards/{page.name}" for page in PAGES)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((DEPLOY / "grafana" / name).read_bytes())
    (tmp_path / "dashboards" / "jobs.json").write_text("{}")
    command = [sys.executable, str(tmp_path / "dashboards.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "jobs.json" in done.stderr
    assert "gains.json" not in done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.stem))
def test_a_dashboard_chooses_its_data_source_and_assumes_no_labels_but_ours(page: Path) -> None:
    made = json.loads(page.read_text())
    variables = [each["name"] for each in made["templating"]["list"]]
    assert variables[0] == "datasource"
    ids = [panel["id"] for panel in made["panels"]]
    assert len(set(ids)) == len(ids)
    panels = [panel for panel in made["panels"] if panel["type"] != "row"]
    assert panels
    for panel in panels:
        assert panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters)) != [""]
        for target in panel["targets"]:
            assert target["datasource"]["uid"] == "${datasource}"
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= {*variables, "__rate_interval"}
            assert not re.search(r"\b(cluster|pod|container)\b", target["expr"])


def test_grafana_is_provisioned_with_the_folder_and_a_prometheus() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["isDefault"]) == ("prometheus", True)
    (provider,) = yaml.safe_load((folder / "dashboards" / "lowpass.yml").read_text())["providers"]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"


def selectors() -> set[str]:
    """What rules and alerts choose by name and labels."""
    rules = [str(rule["expr"]) for name in ("recording.rules.yml", "alerts.rules.yml") for rule in read_rules(name)]
    return {found for expr in rules for found in re.findall(r"(?<![:\w])lowpass_[a-z_]+(?:\{[^}]*\})?(?![:\w])", expr)}


def documented() -> set[str]:
    return set(re.findall(r"^\| `(lowpass_\w+)`", (ROOT / "docs" / "metrics.md").read_text(), re.M))


def test_every_name_that_rules_and_dashboards_use_is_documented_or_recorded() -> None:
    rules = [str(rule["expr"]) for name in ("recording.rules.yml", "alerts.rules.yml") for rule in read_rules(name)]
    used = {family(name) for expr in [*rules, *expressions()] for name in names(expr)}
    assert used <= documented()
    recorded = {name for expr in [*rules, *expressions()] for name in re.findall(r"\b\w+(?::\w+)+", expr)}
    assert recorded <= set(RECORDED)
    assert set(RECORDED) - recorded <= {"lowpass_kept_share:bound"}


@dataclass
class Watched:
    """A student with its teacher as shadow, two workers with TLS and keys, a job, and who watches them all."""

    prometheus: Prometheus
    servers: list[ServerProcess]


def push_job(gateway: str) -> None:
    """What `lowpass job` tells of a run that published."""
    registry = CollectorRegistry()

    def gauge(name: str, values: dict[tuple[str, ...], float], *labels: str) -> None:
        made = Gauge(f"lowpass_job_{name}", name, ("job_name", *labels), registry=registry)
        for each, value in values.items():
            made.labels("nightly", *each).set(value)

    gauge("last_success_timestamp_seconds", {(): time.time() - 60})
    gauge("last_run_timestamp_seconds", {(): time.time() - 60})
    gauge("last_outcome", {("published",): 1, ("held",): 0, ("failed",): 0}, "outcome")
    gauge("step_duration_seconds", {("teacher",): 60, ("distill",): 30}, "step")
    gauge("gate_value", {("kept_recall",): 0.97}, "check")
    gauge("gate_bound", {("kept_recall",): 0.95}, "check")
    gauge("gate_passed", {("kept_recall",): 1}, "check")
    push_to_gateway(gateway, "lowpass_job", registry, {"job_name": "nightly"}, timeout=10)


@contextlib.contextmanager
def asked(first: ServerProcess, second: ServerProcess, authority: Authority) -> Iterator[None]:
    """Callers that ask both models, and one who has no key."""
    stop = threading.Event()

    def ask_on() -> None:
        with (
            RecommenderClient(first.address, 20) as client,
            RecommenderClient(second.address, 20, credentials=authority.trust()) as stranger,
        ):
            for turn in range(10**9):
                client.recommend(f"u{turn % USERS}", k=10)
                client.recommend(f"u{turn % USERS}", k=10, model="teacher")
                if turn % 10 == 0:
                    with contextlib.suppress(RecommenderError):
                        stranger.recommend("user-1")
                if stop.wait(0.02):
                    return

    thread = threading.Thread(target=ask_on)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    for name in ("models", "a", "b"):
        (folder / name).mkdir()
    publish(folder / "models", "student", factory="Flat", seed=1)
    publish(folder / "models", "teacher", factory="Flat", seed=1)
    authority = Authority(folder)
    _, line = new_key("website")
    (folder / "keys").write_text(line)
    files = authority.server
    # Nobody takes the traces: their ids are in the buckets all the same.
    one = ["--repository", str(folder / "models"), "--shadow", "student:teacher=1", "--trace-share", "1"]
    one += ["--trace-endpoint", "http://127.0.0.1:9"]
    two = ["--fake", "--workers", "2", "--tls-cert", str(files.certificate), "--tls-key", str(files.key)]
    two += ["--api-keys", str(folder / "keys")]
    with (
        serving(folder / "a", *one) as first,
        serving(folder / "b", *two) as second,
        asked(first, second, authority),
        watching(folder, [first.metrics_address, second.metrics_address]) as prometheus,
    ):
        push_job(prometheus.gateway)
        yield Watched(prometheus, [first, second])


@needs_prometheus
def test_every_expression_gives_a_series(watched: Watched) -> None:
    wanted = {expr for expr in expressions() if not names(expr) & set(EMPTY)}
    wanted |= set(RECORDED)
    wanted |= {each for each in selectors() if not names(each) & set(EMPTY) and "INTERNAL" not in each}  # nothing fails
    missing = set(wanted)

    def look() -> bool:
        for expr in sorted(missing):
            series = watched.prometheus.query(substituted(expr))
            if any(each["value"][1] != "NaN" for each in series):
                missing.discard(expr)
        return not missing

    with contextlib.suppress(AssertionError):
        eventually(look, "a series of each expression")
    assert missing == set()
    left = sorted(set(expressions()) - wanted)
    assert {name for expr in left for name in names(expr)} == set(EMPTY)
    for expr in left:
        assert watched.prometheus.query(substituted(expr)) == [], f"{expr} is not empty any more"


@needs_prometheus
def test_every_variable_of_a_dashboard_has_values(watched: Watched) -> None:
    for page in PAGES:
        for variable in json.loads(page.read_text())["templating"]["list"]:
            if variable["type"] != "query":
                continue
            match = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
            assert match is not None, variable
            series = eventually(lambda: watched.prometheus.query(substituted(match[1])), variable["query"])  # noqa: B023
            assert all(each["metric"].get(match[2]) for each in series)


@needs_prometheus
def test_every_series_of_real_servers_is_documented_and_the_other_way_round(watched: Watched) -> None:
    typed = [re.findall(r"^# TYPE (lowpass_\w+)", server.scrape(), re.M) for server in watched.servers]
    found = {name for names_of_server in typed for name in names_of_server}
    found = {name for name in found if not name.startswith("lowpass_supervisor_process_")}
    assert found == {name for name in documented() if not name.startswith("lowpass_job_")}


@needs_prometheus
def test_prometheus_keeps_the_traces_of_the_latency(watched: Watched) -> None:
    def look() -> Any:
        now = time.time()
        query = "lowpass_request_duration_seconds_bucket"
        words = {"query": query, "start": str(now - 600), "end": str(now)}
        found = ask(f"{watched.prometheus.url}/api/v1/query_exemplars", **words)
        return (found or {}).get("data")

    (series, *_) = eventually(look, "an exemplar")
    assert re.fullmatch(r"[0-9a-f]{32}", series["exemplars"][0]["labels"]["trace_id"])
