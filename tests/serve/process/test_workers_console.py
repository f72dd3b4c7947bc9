"""The console before several workers: real processes, asked as its page asks them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import lowpass
from export.bundle.repository import ModelRepository
from serve.client.recommender import RecommenderClient
from tests.serve.process.test_faults import TRANSPORTS
from tests.serve.process.test_workers import by_worker, eventually, wait_restarted, workers
from tests.serve.processes import ServerProcess
from tests.serve.repositories import two_versions

BOTH = {"0": 1.0, "1": 1.0}
TRY = {"user_id": "u1", "k": 5}


class Page:
    """What a browser sends."""

    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, verb: str, path: str, content: dict[str, Any] | None = None, key: str = "") -> tuple[int, Any]:
        host, _, port = self._address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=60)
        headers = {"Origin": f"http://{self._address}", "Authorization": f"Bearer {key}" if key else ""}
        try:
            connection.request(verb, path, json.dumps(content or {}).encode(), headers)
            answer = connection.getresponse()
            body = answer.read()
            is_json = (answer.headers["Content-Type"] or "").startswith("application/json")
            return answer.status, json.loads(body) if is_json else body
        finally:
            connection.close()

    def post(self, method: str, **content: Any) -> Any:
        status, answer = self.ask("POST", f"/v1/{method}", content)
        assert status == 200, answer
        return answer

    def listed(self) -> list[tuple[str, bool, list[str], str]]:
        versions = self.post("listModels")["versions"]
        return [(each["version"], each["loaded"], each["labels"], each["differs"]) for each in versions]


@pytest.fixture(params=TRANSPORTS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    (tmp_path / "models").mkdir()
    disk = two_versions(tmp_path / "models")
    options = ["--transport", request.param, "--console-address", "127.0.0.1:0"]
    with workers(tmp_path, disk, *options) as running:
        yield running


def traffic(server: ServerProcess) -> dict[tuple[str, ...], float]:
    """What counts requests, answers and comparisons, without what changed the models."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(server.scrape())
        if family.name.startswith(("lowpass_request", "lowpass_stage", "lowpass_answers", "lowpass_shadow"))
        for sample in family.samples
        if not sample.labels.get("method", "").startswith(("Set", "Load")) and sample.value
    }


def compared(server: ServerProcess) -> float:
    return sum(by_worker(server, "lowpass_shadow_overlap_count").values())


def test_it_shows_and_changes_all_workers_and_its_questions_are_no_traffic(server: ServerProcess) -> None:
    page = Page(server.console_address)
    assert page.ask("GET", "/")[1].startswith(b"<!doctype html>")
    assert page.listed() == [("1", True, ["stable"], ""), ("2", False, [], "")]
    page.post("setLabel", model="student", label="canary", revision="2")
    assert by_worker(server, "lowpass_bundle_info", model="student", version="2") == BOTH
    page.post("setSplit", model="student", shares={"canary": 0.25})
    page.post("setShadow", model="student", shadow_model="student", shadow_revision="canary", share=1.0)
    listed = page.post("listModels")
    assert [(each["version"], each["loaded"], each["differs"]) for each in listed["versions"]] == [
        ("1", True, ""),
        ("2", True, ""),
    ]
    (routing,) = listed["routing"]
    assert (routing["shares"], routing["shadow_revision"]) == ({"canary": 0.25}, "canary")
    assert traffic(server) == {}
    answers = {
        version: page.post("recommend", **TRY, model={"name": "student", "version": version}) for version in ("1", "2")
    }
    assert [answer["version"] for answer in answers.values()] == ["1", "2"]
    assert [len(answer["item_ids"]) for answer in answers.values()] == [5, 5]
    assert len(page.post("similarItems", item_id="i3", k=4)["item_ids"]) == 4
    assert page.post("getInfo")["models"]
    status, unknown = page.ask("POST", "/v1/recommend", {"user_id": "nobody"})
    assert (status, unknown["error"]["details"][0]["reason"]) == (404, "UNKNOWN_USER"), "the worker's own words"
    assert traffic(server) == {}, "neither counted nor compared"
    with RecommenderClient(server.address) as client:
        client.recommend("u1", k=5, model="student:1")
    eventually(lambda: compared(server) == 1)
    page.post("recommend", **TRY)
    overview = page.ask("GET", "/v1/overview")[1]
    assert (overview["serving"], overview["may_change"], overview["conditions"]) == (True, True, [])
    assert sum(by_worker(server, "lowpass_request_duration_seconds_count", method="Recommend").values()) == 1
    assert compared(server) == 1
    assert by_worker(server, "lowpass_request_duration_seconds_count", method="SetSplit") == BOTH, "changes are counted"


def test_it_goes_on_while_a_worker_is_killed(server: ServerProcess) -> None:
    page = Page(server.console_address)
    page.post("setSplit", model="student", shares={})
    for number in (0, 1):
        before = by_worker(server, "lowpass_worker_restarts_total")
        pid = {event["worker"]: event["pid"] for event in server.events() if event["event"] == "worker ready"}[number]
        os.kill(pid, signal.SIGKILL)
        assert len(page.post("recommend", **TRY)["item_ids"]) == 5
        assert page.post("listModels")["versions"][0]["loaded"]
        wait_restarted(server, {**before, str(number): 1.0})
    assert len(page.post("recommend", **TRY)["item_ids"]) == 5
    assert page.listed() == [("1", True, ["stable"], ""), ("2", False, [], "")]


def test_keys_are_those_of_a_single_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "models").mkdir()
    disk: ModelRepository = two_versions(tmp_path / "models")
    keys: dict[str, str] = {}
    for name in ("asker", "operator"):
        assert lowpass.main(["key", name, "--file", str(tmp_path / name)]) == 0
        keys[name] = capsys.readouterr().out.split()[-1]
    options = ["--api-keys", str(tmp_path / "asker"), "--admin-api-keys", str(tmp_path / "operator")]
    with workers(tmp_path, disk, *options, "--console-address", "127.0.0.1:0") as server:
        page = Page(server.console_address)
        move = {"model": "student", "label": "canary", "revision": "2"}

        def asked(key: str) -> list[int]:
            return [page.ask("POST", f"/v1/{path}", sent, key)[0] for path, sent in calls.items()]

        calls: dict[str, dict[str, Any]] = {"recommend": TRY, "setLabel": move}
        assert [asked(key) for key in ("", keys["asker"], keys["operator"])] == [[401, 401], [200, 403], [200, 200]]
        assert disk.labels("student")["canary"] == "2"
    log = server.log.read_text()
    assert not any(key in log for key in keys.values())


def test_a_supervisor_with_a_console_loads_no_faiss() -> None:
    program = "import serve.process.workers_console, sys; assert not {'faiss', 'onnxruntime'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
