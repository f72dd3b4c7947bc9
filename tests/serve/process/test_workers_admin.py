"""A supervisor's admin service over workers in this process, each a real manager behind a real socket."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest
from google.rpc import code_pb2
from prometheus_client import CollectorRegistry

from export.bundle.repository import ModelRepository
from export.bundle.versions import Repository
from serve.answers.admission import Deadline
from serve.answers.call import Call
from serve.answers.errors import AddressUnavailable, ModelUnusable, NotReady
from serve.live.manager import ModelManager
from serve.live.shadow import Shadow
from serve.live.store import ModelStore
from serve.process.admin import admin_settings, looking_settings
from serve.process.changes import Changes
from serve.process.options import ServerOptions
from serve.process.worker_calls import looking_at
from serve.process.workers_admin import WorkersAdmin
from serve.process.workers_console import answered_by_one
from serve.rpc.admin import ADMIN_SERVICE, ModelAdminService
from serve.rpc.pb.lowpass.v1 import admin_pb2 as pb
from serve.rpc.pb.lowpass.v1 import recommender_pb2
from serve.rpc.services import SERVICE, RecommenderService
from serve.rpc.status import Refusal
from serve.telemetry.metrics import Metrics
from serve.transport.grpcio import GrpcioServer
from tests.serve.repositories import two_versions


class RefusingManager(ModelManager):
    """Cannot load some versions: its disk is not that of the others."""

    refused: frozenset[str] = frozenset()

    def _load(self, name: str, version: str, repository: Repository | None = None) -> bool:
        if version in self.refused:
            raise ModelUnusable(f"{name}/{version}/index.faiss: unreadable")
        return super()._load(name, version, repository)


class Worker:
    """What a worker is to its supervisor: models, and the service on a socket."""

    def __init__(self, disk: ModelRepository, socket: str, refused: frozenset[str] = frozenset()) -> None:
        self.store, metrics = ModelStore(), Metrics(CollectorRegistry())
        self.manager = RefusingManager(disk, ["student"], self.store, metrics, verify=False)
        self.manager.start()
        self.manager.refused = refused
        self.shadow = Shadow(self.store, metrics.shadow, lambda: False)
        service = ModelAdminService(self.manager, self.shadow)
        options, unseen = ServerOptions(repository=disk.root), Metrics(CollectorRegistry())
        changing = replace(admin_settings(options, service, metrics), reflection=False)
        asked = RecommenderService(self.store, options.limits, unseen, "test").methods()
        looking = looking_settings(options, {SERVICE: asked, ADMIN_SERVICE: service.methods()[:1]}, unseen)
        self._transports = [GrpcioServer(changing), GrpcioServer(looking)]
        for transport, address in zip(self._transports, (socket, looking_at(socket)), strict=True):
            transport.bind(address)
            transport.start()

    def stop(self) -> None:
        for transport in self._transports:
            transport.stop(0.0)
        self.shadow.stop()
        self.manager.stop()

    @property
    def loaded(self) -> list[str]:
        return list(self.store.versions("student").versions)

    @property
    def default(self) -> str:
        return self.store.versions("student").default

    @property
    def split(self) -> dict[str, float]:
        return dict(self.store.versions("student").split.shares)


class Stage:
    """A supervisor's service and its workers."""

    def __init__(self, disk: ModelRepository) -> None:
        self.disk = disk
        self.admin = WorkersAdmin(disk.root, 2, Changes({}, {}))
        self.workers: dict[int, Worker] = {}
        self._sockets: dict[int, str] = {}

    def start(self, number: int, *refused: str) -> Worker:
        path = self.admin.new_socket(number)
        self.workers[number] = Worker(self.disk, path, frozenset(refused))
        self._sockets[number] = path
        self.admin.join(number, path)
        return self.workers[number]

    def kill(self, number: int, *, unnoticed: bool = False) -> None:
        self.workers.pop(number).stop()
        if not unnoticed:
            self.admin.leave(number, self._sockets[number])

    def close(self) -> None:
        for worker in self.workers.values():
            worker.stop()
        self.admin.close()

    @property
    def listed(self) -> dict[str, tuple[bool, str]]:
        found = self.admin.list_models(pb.ListModelsRequest(), call()).versions
        return {each.version: (each.loaded, each.differs) for each in found}


def call() -> Call:
    return Call(0, Deadline.of(monotonic(), 60.0, None), lambda: True, 0)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_versions(tmp_path_factory.mktemp("models")).root


@pytest.fixture
def stage(template: Path, tmp_path: Path) -> Iterator[Stage]:
    shutil.copytree(template, tmp_path / "models")
    made = Stage(ModelRepository(tmp_path / "models"))
    yield made
    made.close()


@pytest.fixture
def both(stage: Stage) -> Stage:
    stage.start(0)
    stage.start(1)
    return stage


@pytest.fixture
def one_refuses(stage: Stage) -> Stage:
    """Worker 1 cannot load version 2."""
    stage.start(0)
    stage.start(1, "2")
    return stage


def label(stage: Stage, name: str, revision: str) -> list[pb.ModelVersion]:
    request = pb.SetLabelRequest(model="student", label=name, revision=revision)
    return list(stage.admin.set_label(request, call()).versions)


def load(stage: Stage, revision: str = "") -> pb.ModelVersion:
    return stage.admin.load(pb.LoadModelRequest(model="student", revision=revision), call()).version


def unload(stage: Stage, version: str) -> bool:
    return stage.admin.unload(pb.UnloadModelRequest(model="student", version=version), call()).drained


def split(stage: Stage, **shares: float) -> None:
    stage.admin.set_split(pb.SetSplitRequest(model="student", shares=shares), call())


def shadow(stage: Stage, revision: str) -> None:
    request = pb.SetShadowRequest(model="student", shadow_model="student", shadow_revision=revision, share=0.5)
    stage.admin.set_shadow(request, call())


def loaded(stage: Stage) -> list[list[str]]:
    return [worker.loaded for worker in stage.workers.values()]


def test_every_change_is_made_in_all_workers(both: Stage) -> None:
    assert load(both, "2").loaded
    assert loaded(both) == [["1", "2"], ["1", "2"]]
    assert unload(both, "2") is True
    assert loaded(both) == [["1"], ["1"]]
    moved = label(both, "stable", "2")
    assert [(each.version, list(each.labels), each.is_default) for each in moved] == [
        ("1", ["previous"], False),
        ("2", ["stable"], True),
    ]
    assert loaded(both) == [["2"], ["2"]], "what no label names is dropped everywhere"
    back = both.admin.rollback(pb.RollbackRequest(model="student"), call()).versions
    assert [each.is_default for each in back] == [True, False]
    assert both.disk.labels("student") == {"stable": "1", "previous": "2"}, "moved once, not once a worker"
    label(both, "canary", "2")
    split(both, canary=0.25)
    assert [worker.split for worker in both.workers.values()] == [{"canary": 0.25}] * 2
    shadow(both, "canary")
    assert both.listed == {"1": (True, ""), "2": (True, "")}
    (routing,) = both.admin.list_models(pb.ListModelsRequest(), call()).routing
    assert (routing.model, dict(routing.shares)) == ("student", {"canary": 0.25})
    assert (routing.shadow_model, routing.shadow_revision, routing.shadow_share) == ("student", "canary", 0.5)
    both.workers[1].manager.set_split("student", {})
    assert both.listed["1"] == (True, "not the same split or shadow in all workers")
    assert both.listed["2"] == (True, "")


def test_what_is_wrong_with_a_change_is_told_as_by_one_server(both: Stage) -> None:
    with pytest.raises(Refusal) as caught:
        load(both, "9")
    assert caught.value.status.code == code_pb2.NOT_FOUND
    assert caught.value.status.message.startswith("unknown bundle 'student:9'")
    assert [packed.TypeName().rpartition(".")[2] for packed in caught.value.status.details] == [
        "ErrorInfo",
        "ResourceInfo",
    ]
    with pytest.raises(Refusal) as caught:
        both.admin.rollback(pb.RollbackRequest(), call())
    assert "model: is empty" in caught.value.status.message
    with pytest.raises(Refusal, match="answers by default"):
        unload(both, "1")
    with pytest.raises(Refusal) as caught:
        unload(both, "2")
    assert caught.value.status.code == code_pb2.NOT_FOUND


def test_a_version_that_one_worker_cannot_load_is_in_none(one_refuses: Stage) -> None:
    with pytest.raises(Refusal) as caught:
        load(one_refuses, "2")
    assert caught.value.status.code == code_pb2.FAILED_PRECONDITION
    assert caught.value.status.message == (
        "refused by worker 1 alone, undone in worker 0: student/2/index.faiss: unreadable"
    )
    assert loaded(one_refuses) == [["1"], ["1"]]


def test_a_label_that_one_worker_cannot_follow_is_put_back(one_refuses: Stage) -> None:
    with pytest.raises(Refusal, match="undone in worker 0"):
        label(one_refuses, "stable", "2")
    assert one_refuses.disk.labels("student") == {"stable": "1"}, "neither moved, nor a previous"
    assert loaded(one_refuses) == [["1"], ["1"]]
    assert [worker.default for worker in one_refuses.workers.values()] == ["1", "1"]


def test_a_new_label_that_one_worker_cannot_follow_is_gone_again(one_refuses: Stage) -> None:
    with pytest.raises(Refusal, match="undone in worker 0"):
        label(one_refuses, "canary", "2")
    assert one_refuses.disk.labels("student") == {"stable": "1"}
    assert loaded(one_refuses) == [["1"], ["1"]]
    one_refuses.workers[1].manager.refused = frozenset()
    label(one_refuses, "stable", "2")
    assert loaded(one_refuses) == [["2"], ["2"]], "no worker looks for the label that is gone"


def test_a_new_label_for_what_was_loaded_before_stays_and_that_is_said(both: Stage) -> None:
    load(both, "2")
    refusing = both.workers[1]
    refusing.manager.unload("student", "2", 0.0)
    refusing.manager.refused = frozenset({"2"})
    assert both.listed["2"] == (False, "loaded by worker 0 alone")
    with pytest.raises(Refusal, match="refused by worker 1 alone, the new label canary stays at version 2"):
        label(both, "canary", "2")


def test_a_split_that_one_worker_cannot_make_is_as_it_was_before(one_refuses: Stage) -> None:
    one_refuses.disk.set_label("student", "same", "1")
    one_refuses.disk.set_label("student", "canary", "2")
    split(one_refuses, same=0.5)
    with pytest.raises(Refusal, match="undone in worker 0"):
        split(one_refuses, canary=0.5)
    assert [worker.split for worker in one_refuses.workers.values()] == [{"same": 0.5}] * 2
    assert loaded(one_refuses) == [["1"], ["1"]]


def test_a_shadow_that_one_worker_does_not_have_is_as_it_was_before(both: Stage) -> None:
    both.workers[0].manager.load("student", "2")
    with pytest.raises(Refusal, match="refused by worker 1 alone, undone in worker 0: unknown version '2'"):
        shadow(both, "2")
    assert both.workers[0].shadow._rules == {}


def test_unloading_is_done_where_it_is_to_do(both: Stage) -> None:
    both.workers[1].manager.load("student", "2")
    assert both.listed["2"] == (False, "loaded by worker 1 alone")
    assert unload(both, "2") is True
    assert loaded(both) == [["1"], ["1"]]


def test_a_worker_that_starts_later_is_told_what_was_changed(stage: Stage) -> None:
    stage.start(0)
    label(stage, "canary", "2")
    split(stage, canary=0.25)
    shadow(stage, "canary")
    late = stage.start(1)
    assert (late.loaded, late.split) == (["1", "2"], {"canary": 0.25})
    assert late.shadow._rules == stage.workers[0].shadow._rules != {}
    split(stage)
    unload(stage, "2")
    stage.kill(1)
    assert (stage.start(1).loaded, stage.workers[1].split) == (["1"], {})


def test_what_a_later_worker_cannot_do_is_listed_and_logged(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    stage.start(0)
    load(stage, "2")
    stage.start(1, "2")
    assert stage.listed["2"] == (False, "loaded by worker 0 alone")
    (line,) = [record for record in caplog.records if record.message == "worker differs"]
    assert "index.faiss" in str(line.fields)  # type: ignore[attr-defined]


@pytest.mark.parametrize("unnoticed", [False, True])
def test_a_worker_that_has_died_refuses_nothing(both: Stage, unnoticed: bool) -> None:
    both.kill(0, unnoticed=unnoticed)
    assert both.listed["1"] == (True, "no answer of worker 0")
    label(both, "stable", "2")
    assert loaded(both) == [["2"]]
    assert both.start(0).loaded == ["2"]
    assert both.listed == {"1": (False, ""), "2": (True, "")}


def test_without_a_worker_everything_is_for_later(stage: Stage) -> None:
    for change in (lambda: load(stage, "2"), lambda: label(stage, "stable", "2"), lambda: stage.listed):
        with pytest.raises(NotReady):
            change()


def ask(stage: Stage, user: str = "u1") -> recommender_pb2.RecommendResponse:
    method = next(each for each in answered_by_one(stage.admin) if each.name == "Recommend")
    answer = method.handle(recommender_pb2.RecommendRequest(user_id=user, k=3), call())
    assert isinstance(answer, recommender_pb2.RecommendResponse)
    return answer


def test_one_worker_answers_and_another_one_where_it_is_gone_or_hangs(stage: Stage) -> None:
    with pytest.raises(NotReady):
        ask(stage)
    with socket.socket(socket.AF_UNIX) as hung:
        silent = stage.admin.new_socket(0)
        hung.bind(looking_at(silent).removeprefix("unix:"))
        hung.listen()
        stage.admin.join(0, silent)
        stage.start(1)
        assert len(ask(stage).item_ids) == 3
    assert len(ask(stage).item_ids) == 3, "gone, and nobody has noticed yet"
    with pytest.raises(Refusal) as caught:
        ask(stage, "nobody")
    assert (caught.value.status.code, len(caught.value.status.details)) == (code_pb2.NOT_FOUND, 2)


def test_what_streams_is_not_passed_on(stage: Stage) -> None:
    names = [each.name for each in answered_by_one(stage.admin)]
    assert names == ["Recommend", "BatchRecommend", "SimilarItems", "GetInfo"]


def test_a_change_waits_for_the_one_before_it(both: Stage) -> None:
    threads = [threading.Thread(target=label, args=(both, "canary", version)) for version in ("1", "2", "1")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60.0)
    canary = both.disk.labels("student")["canary"]
    assert loaded(both) == [["1"], ["1"]] if canary == "1" else [["1", "2"], ["1", "2"]]


def test_sockets_are_for_this_user_alone_and_gone_in_the_end(stage: Stage) -> None:
    folder = Path(stage.admin.new_socket(0).removeprefix("unix:")).parent
    assert folder.stat().st_mode & 0o777 == 0o700
    stage.admin.close()
    assert not folder.exists()


def test_no_place_for_sockets_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(AddressUnavailable, match=r"no place for the sockets of workers .* set TMPDIR"):
        WorkersAdmin(tmp_path, 2, Changes({}, {}))
    deep = tmp_path / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(AddressUnavailable, match="TMPDIR is too long"):
        WorkersAdmin(tmp_path, 2, Changes({}, {}))
    assert list(deep.iterdir()) == []
