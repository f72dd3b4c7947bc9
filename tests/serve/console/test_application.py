"""Who may ask the console what, as one request after the other, without a socket."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter_ns
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from export.bundle.repository import ModelRepository
from serve.answers.limits import Limits
from serve.console.access import Access
from serve.console.application import Console
from serve.console.server import ConsoleServer
from serve.live.manager import ModelManager
from serve.live.shadow import Shadow, ShadowRule
from serve.live.store import ModelStore
from serve.rpc.admin import ModelAdminService
from serve.rpc.credentials import new_key
from serve.rpc.services import RecommenderService
from serve.telemetry.metrics import Metrics
from serve.transport.http_messages import HttpAnswer, HttpRequest
from tests.serve.repositories import two_versions

HOST = "127.0.0.1:9470"
CHANGES = ("loadModel", "unloadModel", "setLabel", "rollback", "setSplit", "setShadow")


class Desk:
    """A console over two versions of a model, asked as its server would."""

    def __init__(self, folder: Path, models: Path, *, keys: bool, is_local: bool = True) -> None:
        self.reader, reader_line = new_key("reader")
        self.operator, operator_line = new_key("operator")
        (folder / "keys").write_text(reader_line)
        (folder / "operators").write_text(operator_line)
        self.store, self.metrics = ModelStore(), Metrics(CollectorRegistry())
        shutil.copytree(models, folder / "models")
        self.repository = ModelRepository(folder / "models")
        self.manager = ModelManager(self.repository, [], self.store, self.metrics)
        self.manager.start()
        self.shadow = Shadow(self.store, self.metrics.shadow, lambda: False)
        access = Access(folder / "keys", folder / "operators") if keys else Access(None, None)
        limits = Limits()
        self.server = ConsoleServer(
            lambda metrics: RecommenderService(self.store, limits, metrics, "test").methods(),
            ModelAdminService(self.manager, self.shadow).methods(),
            self.metrics,
            limits,
            access,
            is_serving=lambda: True,
            is_local=is_local,
            jobs=folder / "jobs",
        )
        application = self.server._http.application
        assert isinstance(application, Console)
        self.console = application

    def ask(self, verb: str, target: str, body: Any = None, *, key: str = "", **headers: str) -> HttpAnswer:
        named = {"host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
        if key:
            named["authorization"] = f"Bearer {key}"
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        begun = self.console.begin(HttpRequest(verb, target, named, content, perf_counter_ns()))
        return begun if isinstance(begun, HttpAnswer) else begun()

    def change(
        self, method: str, body: Any, *, key: str = "", origin: str = f"http://{HOST}", **headers: str
    ) -> HttpAnswer:
        return self.ask("POST", f"/v1/{method}", body, key=key, origin=origin, **headers)

    @property
    def stable(self) -> str:
        return self.repository.labels("student")["stable"]

    def close(self) -> None:
        self.shadow.stop()
        self.manager.stop()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_versions(tmp_path_factory.mktemp("models")).root


@pytest.fixture
def desk(tmp_path: Path, models: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, models, keys=False)
    yield made
    made.close()


@pytest.fixture
def locked(tmp_path: Path, models: Path) -> Iterator[Desk]:
    made = Desk(tmp_path, models, keys=True)
    yield made
    made.close()


def content(answer: HttpAnswer) -> Any:
    return json.loads(answer.body)


def header(answer: HttpAnswer, name: str) -> str:
    found: Mapping[str, str] = dict(answer.headers)
    return found[name]


def test_the_page_and_all_it_loads_are_there_without_a_key(locked: Desk) -> None:
    page = locked.ask("GET", "/")
    assert page.status == 200
    assert b"<script" in page.body
    assert b"<style" not in page.body
    assert b"style=" not in page.body
    loaded = [path for path in locked.console.files if path != "/"]
    assert {"/console.css", "/main.js", "/icon.svg"} <= set(loaded)
    for path in loaded:
        answer = locked.ask("GET", path)
        assert answer.status == 200
        assert header(answer, "X-Content-Type-Options") == "nosniff"
    assert header(locked.ask("GET", "/main.js"), "Content-Type").startswith("text/javascript")
    assert locked.ask("GET", "/../console.py").status == 404
    assert locked.ask("POST", "/").status == 405


@pytest.mark.parametrize(("verb", "target"), [("GET", "/"), ("GET", "/nowhere"), ("GET", "/v1/overview")])
def test_every_answer_lets_no_other_origin_in(desk: Desk, verb: str, target: str) -> None:
    answer = desk.ask(verb, target)
    policy = header(answer, "Content-Security-Policy").split("; ")
    for wanted in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'"):
        assert wanted in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in header(answer, "Content-Security-Policy")
    assert header(answer, "Referrer-Policy") == "no-referrer"
    assert header(answer, "Cache-Control") == "no-store"
    assert "Access-Control-Allow-Origin" not in dict(answer.headers)


@pytest.mark.parametrize("host", ["localhost:9470", "127.0.0.1", "[::1]:9000", "LOCALHOST"])
def test_it_is_called_by_a_name_of_this_machine(desk: Desk, host: str) -> None:
    assert desk.ask("GET", "/v1/overview", host=host).status == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9470", "localhost.evil.example", "127.0.0.1.evil.example", "[::2]", ""]
)
def test_any_other_name_is_refused_because_it_may_be_rebound(desk: Desk, host: str) -> None:
    for verb, target in (("GET", "/"), ("GET", "/v1/overview"), ("POST", "/v1/recommend")):
        assert desk.ask(verb, target, host=host).status == 421


def test_past_this_machine_tls_has_checked_the_name(tmp_path: Path, models: Path) -> None:
    desk = Desk(tmp_path, models, keys=True, is_local=False)
    assert desk.ask("GET", "/v1/overview", key=desk.reader, host="lowpass.example:9470").status == 200
    desk.close()


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "", f"https://{HOST}", "http://127.0.0.1:1"])
@pytest.mark.parametrize("method", CHANGES)
def test_a_change_comes_from_our_own_page(desk: Desk, origin: str, method: str) -> None:
    assert desk.change(method, {"model": "student"}, origin=origin).status == 403
    assert desk.stable == "1"


def test_a_browser_that_says_it_comes_from_elsewhere_is_believed(desk: Desk) -> None:
    for site in ("cross-site", "same-site"):
        assert desk.ask("POST", "/v1/recommend", {"user_id": "u1"}, sec_fetch_site=site).status == 403
        assert desk.ask("GET", "/v1/overview", sec_fetch_site=site).status == 403
    assert desk.ask("GET", "/v1/overview", sec_fetch_site="same-origin").status == 200


def test_each_key_opens_what_it_is_for(locked: Desk) -> None:
    questions = [("GET", "/v1/overview"), ("GET", "/v1/jobs"), ("POST", "/v1/listModels"), ("POST", "/v1/getInfo")]
    move = {"model": "student", "label": "stable", "revision": "2"}
    for verb, target in questions:
        assert locked.ask(verb, target).status == 401
        assert locked.ask(verb, target, key="wrong").status == 401
        assert locked.ask(verb, target, key=locked.reader).status == 200
        assert locked.ask(verb, target, key=locked.operator).status == 200
    assert content(locked.ask("GET", "/v1/overview", key=locked.reader))["may_change"] is False
    assert content(locked.ask("GET", "/v1/overview", key=locked.operator))["may_change"] is True
    assert locked.change("setLabel", move).status == 401
    refused = locked.change("setLabel", move, key=locked.reader)
    assert (refused.status, locked.stable) == (403, "1")
    assert "--admin-api-keys" in content(refused)["error"]["message"]
    assert locked.change("setLabel", move, key=locked.operator).status == 200
    assert locked.stable == "2"


def test_who_shows_no_valid_key_is_counted(locked: Desk) -> None:
    locked.ask("GET", "/v1/overview", key="wrong")
    count = locked.metrics.registry.get_sample_value("lowpass_requests_rejected_total", {"reason": "unauthenticated"})
    assert count == 1


def test_nothing_is_asked_by_the_address(desk: Desk) -> None:
    answer = desk.ask("GET", "/v1/recommend?user_id=u1")
    assert answer.status == 400
    assert "logged" in content(answer)["error"]["message"]
    assert desk.ask("GET", "/v1/recommend").status == 405
    assert desk.ask("GET", "/v1/setLabel", origin=f"http://{HOST}").status == 405
    assert desk.ask("POST", "/v1/overview").status == 405
    assert desk.ask("POST", "/v1/streamRecommend").status == 404


@pytest.mark.parametrize("raw", [b"[]", b"{", b'{"model": 1}', b"\xff", b'{"nothing": 1}'])
def test_what_cannot_be_read_changes_nothing(desk: Desk, raw: bytes) -> None:
    answer = desk.ask("POST", "/v1/setLabel", raw, origin=f"http://{HOST}")
    assert (answer.status, desk.stable) == (400, "1")


def test_a_change_is_the_admin_services_own(desk: Desk) -> None:
    found = content(desk.change("setLabel", {"model": "student", "label": "stable", "revision": "2"}))
    labels = {each["version"]: each["labels"] for each in found["versions"]}
    assert labels == {"1": ["previous"], "2": ["stable"]}
    assert desk.store.find("student").summary.version == "2"
    assert desk.change("rollback", {"model": "student"}).status == 200
    assert desk.stable == "1"
    assert desk.change("setLabel", {"model": "student", "label": "stable", "revision": "9"}).status == 404
    counted = {"method": "SetLabel", "model": "", "version": "", "code": "OK"}
    total = desk.metrics.registry.get_sample_value("lowpass_request_duration_seconds_count", counted)
    assert total == 1


def test_a_split_and_a_shadow_in_effect_are_listed(desk: Desk) -> None:
    assert content(desk.ask("POST", "/v1/listModels"))["routing"] == []
    desk.manager.set_label("student", "canary", "2")
    assert desk.change("setSplit", {"model": "student", "shares": {"canary": 0.25}}).status == 200
    shadow = {"model": "student", "shadow_model": "student", "shadow_revision": "2", "share": 0.5}
    assert desk.change("setShadow", shadow).status == 200
    (found,) = content(desk.ask("POST", "/v1/listModels"))["routing"]
    assert found["shares"] == {"canary": 0.25}
    assert (found["shadow_model"], found["shadow_revision"], found["shadow_share"]) == ("student", "2", 0.5)
    assert desk.shadow.rule("student") == ShadowRule("student", "2", 0.5)


def test_what_the_console_asks_is_no_traffic(desk: Desk) -> None:
    desk.change("setShadow", {"model": "student", "shadow_model": "student", "share": 1.0})
    assert desk.ask("POST", "/v1/recommend", {"user_id": "u1"}).status == 200
    assert desk.shadow._offers.qsize() == 0
    text = [sample for family in desk.metrics.registry.collect() for sample in family.samples]
    assert not [sample for sample in text if sample.labels.get("method") == "Recommend"]
    assert not [sample for sample in text if sample.name == "lowpass_answers_total" and sample.value]


def test_a_failed_load_is_a_condition_that_names_the_fault(desk: Desk) -> None:
    embeddings = desk.repository.root / "student" / "2" / "item_embeddings.npy"
    broken = bytearray(embeddings.read_bytes())
    broken[-3] ^= 0xFF
    embeddings.write_bytes(broken)
    assert desk.change("loadModel", {"model": "student", "revision": "2"}).status == 400
    overview = content(desk.ask("GET", "/v1/overview"))
    (condition,) = overview["conditions"]
    assert condition["severity"] == "watch"
    assert "student 2" in condition["says"]
    assert "item_embeddings.npy" in condition["says"]


def test_a_server_without_a_repository_can_be_looked_at(tmp_path: Path) -> None:
    store, metrics, limits = ModelStore(), Metrics(CollectorRegistry()), Limits()
    server = ConsoleServer(
        lambda series: RecommenderService(store, limits, series, "test").methods(),
        (),
        metrics,
        limits,
        Access(None, None),
        is_serving=lambda: False,
        is_local=True,
    )
    application = server._http.application
    begun = application.begin(HttpRequest("GET", "/v1/overview", {"host": HOST}, b"", 0))
    assert not isinstance(begun, HttpAnswer)
    overview = content(begun())
    assert overview["may_change"] is False
    assert "NOT_SERVING" in overview["conditions"][0]["says"]
    missing = application.begin(HttpRequest("POST", "/v1/setLabel", {"host": HOST}, b"{}", 0))
    assert isinstance(missing, HttpAnswer)
    assert missing.status == 404
