"""Alerts: written as they should be, and real ones, from a server that is killed and a job that failed to a webhook."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Gauge, push_to_gateway

from serve.telemetry.metrics import BUCKETS
from tests.kits.monitoring import DEPLOY, Webhook, eventually, needs_prometheus, read_rules, watching
from tests.serve.processes import serving

HERE = Path(__file__).parent
DOCS = DEPLOY.parent / "docs"
ALERTS = read_rules("alerts.rules.yml")


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, timeout=280)


def anchors(page: str) -> set[str]:
    """What the headings of a page can be linked by."""
    return {
        re.sub(r"[^\w -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in re.findall(r"^#+ .*$", page, re.M)
    }


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_says_how_urgent_it_is_and_has_a_runbook(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in {"critical", "warning"}
    assert alert["labels"]["service"] == "lowpass"
    assert alert["annotations"]["summary"].endswith(".")
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    text = (DEPLOY.parent / page).read_text(encoding="utf-8")
    assert anchor in anchors(text)
    section = next(part for part in re.split(r"^## ", text, flags=re.M) if part.lower().startswith(anchor))
    for part in ("**Means**", "**Users notice**", "**Look at**", "**Do**"):
        assert part in section, f"{anchor}: no {part}"


def test_a_runbook_is_of_an_alert_and_its_links_lead_somewhere() -> None:
    text = (DOCS / "runbooks.md").read_text(encoding="utf-8")
    known = {alert["annotations"]["runbook_url"].partition("#")[2] for alert in ALERTS}
    assert {line.lower() for line in re.findall(r"^## (.*)$", text, re.M)} == known
    for page, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", text):
        target = DOCS / page if page else DOCS / "runbooks.md"
        assert target.is_file(), page
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8"))


def test_every_alert_has_a_test_that_it_fires_and_one_that_it_does_not() -> None:
    tests = yaml.safe_load((HERE / "alerts.test.yml").read_text())["tests"]
    fires: set[str] = set()
    quiet: set[str] = set()
    for test in tests:
        for case in test["alert_rule_test"]:
            assert test["name"].startswith(case["alertname"] + " ")
            (fires if case.get("exp_alerts") else quiet).add(case["alertname"])
    assert fires == quiet == {alert["alert"] for alert in ALERTS}


@needs_prometheus
def test_promtool_and_amtool_take_the_files_and_each_alert_fires_on_what_it_is_for() -> None:
    for words in (
        ("promtool", "check", "config", DEPLOY / "prometheus" / "prometheus.yml"),
        ("promtool", "test", "rules", HERE / "alerts.test.yml"),
        ("amtool", "check-config", DEPLOY / "alertmanager" / "alertmanager.yml"),
    ):
        done = run(*words)
        assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_a_rule_that_is_off_fails_its_test(tmp_path: Path) -> None:
    tests = yaml.safe_load((HERE / "alerts.test.yml").read_text())
    tests["tests"] = [test for test in tests["tests"] if test["name"].endswith(" fires")]
    tests["rule_files"] = [str(DEPLOY / "prometheus" / "recording.rules.yml"), str(tmp_path / "alerts.yml")]
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(tests))
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.rules.yml").read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        rule["expr"] = f"({rule['expr']}) unless on () vector(1)"
    (tmp_path / "alerts.yml").write_text(yaml.safe_dump(rules))
    done = run("promtool", "test", "rules", tmp_path / "tests.yml")
    assert done.returncode != 0
    for alert in ALERTS:
        assert f"{alert['alert']} fires" in done.stdout + done.stderr


def test_the_objective_is_a_bound_of_the_histogram() -> None:
    bounds = {
        found for rule in read_rules("recording.rules.yml") for found in re.findall(r'le="([^"]*)"', rule["expr"])
    }
    assert {float(bound) for bound in bounds} == {0.0499}
    assert bounds <= {str(bound) for bound in BUCKETS}


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    made = Webhook()
    yield made
    made.stop()


def push(gateway: str, outcome: str) -> None:
    """Tell what became of a job, as `lowpass job` does."""
    registry = CollectorRegistry()
    gauge = Gauge("lowpass_job_last_outcome", "How the last run ended.", ("job_name", "outcome"), registry=registry)
    for each in ("published", "held", "failed"):
        gauge.labels("nightly", each).set(each == outcome)
    push_to_gateway(gateway, "lowpass_job", registry, {"job_name": "nightly"}, timeout=10)


@needs_prometheus
def test_a_killed_server_and_a_failed_job_reach_a_webhook(tmp_path: Path, webhook: Webhook) -> None:
    """Real processes all the way; what waits is made short, nothing else is changed."""
    for name in "ab":
        (tmp_path / name).mkdir()
    with (
        serving(tmp_path / "a", "--fake") as first,
        serving(tmp_path / "b", "--fake") as second,
        watching(tmp_path, [first.metrics_address, second.metrics_address], webhook) as prometheus,
    ):
        push(prometheus.gateway, "published")
        eventually(lambda: prometheus.query('lowpass_job_last_outcome{outcome="published"} == 1'), "the job's outcome")
        assert webhook.received == []

        push(prometheus.gateway, "failed")
        (path, alert), *_ = eventually(lambda: webhook.firing("LowpassJobFailed"), "the failed job at the webhook")
        assert path == "/team"
        assert alert["labels"]["job_name"] == "nightly"
        assert "job nightly failed" in alert["annotations"]["summary"]

        first.process.kill()
        (path, alert), *_ = eventually(lambda: webhook.firing("LowpassDown"), "the killed server at the webhook")
        assert path == "/team"
        assert alert["labels"]["instance"] == first.metrics_address
        assert alert["annotations"]["runbook_url"] == "docs/runbooks.md#lowpassdown"
        assert webhook.firing("LowpassAllDown") == []

        second.process.kill()
        (path, alert), *_ = eventually(lambda: webhook.firing("LowpassAllDown"), "the last server at the webhook")
        assert path == "/pager"
        down = eventually(
            lambda: [each for each in prometheus.alerts("LowpassDown") if each["status"]["state"] == "suppressed"],
            "what is down being silenced where all is",
        )
        assert down[0]["status"]["inhibitedBy"]
        (failed,) = prometheus.alerts("LowpassJobFailed")
        assert failed["status"]["state"] == "active"  # it is no consequence
