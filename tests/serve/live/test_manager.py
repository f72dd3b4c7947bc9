from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from export.bundle.repository import ModelRepository
from serve.answers.errors import (
    InvalidRequest,
    ModelInUse,
    ModelNotServed,
    ModelUnusable,
    NotInRepository,
    VersionNotServed,
)
from serve.answers.types import Query
from serve.live.manager import ModelManager
from serve.live.store import ModelStore
from serve.telemetry.metrics import Metrics
from tests.serve.repositories import publish, two_versions

Make = Callable[..., ModelManager]


@pytest.fixture
def disk(tmp_path: Path) -> ModelRepository:
    return two_versions(tmp_path)


@pytest.fixture
def store() -> ModelStore:
    return ModelStore()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def manage(disk: ModelRepository, store: ModelStore, metrics: Metrics) -> Iterator[Make]:
    made = []

    def make(*choices: str) -> ModelManager:
        manager = ModelManager(disk, choices, store, metrics)
        manager.start()
        made.append(manager)
        return manager

    yield make
    for manager in made:
        manager.stop()


def loaded(store: ModelStore) -> list[tuple[str, str]]:
    return [(model.summary.name, model.summary.version) for model in store.models]


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def damage(path: Path) -> None:
    content = bytearray((path / "item_embeddings.npy").read_bytes())
    content[-1] ^= 1
    (path / "item_embeddings.npy").write_bytes(content)


def test_moving_stable_swaps_what_answers_and_drops_the_old_one(
    manage: Make, store: ModelStore, disk: ModelRepository, metrics: Metrics
) -> None:
    manager = manage()
    assert loaded(store) == [("student", "1")]
    manager.set_label("student", "stable", "2")
    assert loaded(store) == [("student", "2")]
    assert disk.labels("student") == {"stable": "2", "previous": "1"}
    assert store.find("student", label="stable").summary.version == "2"
    assert value(metrics, "lowpass_items", model="student", version="2") == 400
    assert value(metrics, "lowpass_items", model="student", version="1") is None


def test_rollback_goes_back_and_forth(manage: Make, store: ModelStore) -> None:
    manager = manage()
    with pytest.raises(NotInRepository, match="student:previous"):
        manager.rollback("student")
    manager.set_label("student", "stable", "2")
    manager.rollback("student")
    assert loaded(store) == [("student", "1")]
    manager.rollback("student")
    assert loaded(store) == [("student", "2")]


def test_a_bad_bundle_leaves_the_old_one_serving_and_says_why(
    manage: Make, store: ModelStore, disk: ModelRepository, metrics: Metrics
) -> None:
    manager = manage()
    damage(disk.resolve("student", "2"))
    with pytest.raises(ModelUnusable, match=r"item_embeddings\.npy"):
        manager.set_label("student", "stable", "2")
    assert loaded(store) == [("student", "1")]
    assert disk.labels("student") == {"stable": "1"}
    assert value(metrics, "lowpass_model_load_failures_total", model="student") == 1
    (_, second) = manager.states()
    assert "item_embeddings.npy" in second.error


def test_a_loaded_version_stays_until_it_is_unloaded(manage: Make, store: ModelStore) -> None:
    manager = manage()
    assert manager.load("student", "2").summary.version == "2"
    assert loaded(store) == [("student", "1"), ("student", "2")]
    manager.refresh()
    assert store.find("student", version="2").summary.version == "2"
    assert manager.unload("student", "2", timeout=1.0) is True
    assert loaded(store) == [("student", "1")]
    with pytest.raises(VersionNotServed):
        manager.unload("student", "2", timeout=1.0)


def test_unloading_waits_for_requests_that_hold_the_model(manage: Make, store: ModelStore) -> None:
    manager = manage()
    model = manager.load("student", "2")
    release = threading.Timer(0.2, lambda: model.__exit__(None, None, None))
    model.__enter__()
    release.start()
    assert manager.unload("student", "2", timeout=5.0) is True
    assert model.leases == 0
    manager.load("student", "2")
    with store.find("student", version="2") as held:
        assert manager.unload("student", "2", timeout=0.05) is False
        assert held.recommender.recommend([Query("u1", k=3)]).outcomes


def test_what_answers_by_default_is_not_unloaded(manage: Make, store: ModelStore) -> None:
    manager = manage()
    with pytest.raises(ModelInUse, match="student:1 answers by default"):
        manager.unload("student", "1", timeout=1.0)
    with pytest.raises(ModelNotServed):
        manager.unload("nobody", "1", timeout=1.0)
    assert loaded(store) == [("student", "1")]


def test_a_followed_label_takes_its_version_along(manage: Make, store: ModelStore, disk: ModelRepository) -> None:
    manager = manage("student")
    disk.set_label("student", "canary", "2")
    manager.load("student", "canary")
    assert store.find("student", label="canary").summary.version == "2"
    publish(disk.root, "student", factory="Flat", seed=3)
    disk.set_label("student", "canary", "3")
    manager.refresh()
    assert loaded(store) == [("student", "1"), ("student", "3")]


def test_the_watch_follows_a_label_moved_on_disk(manage: Make, store: ModelStore, disk: ModelRepository) -> None:
    manager = manage()
    manager.watch(0.02)
    disk.set_label("student", "stable", "2")
    for _ in range(500):
        if loaded(store) == [("student", "2")]:
            break
        threading.Event().wait(0.01)
    assert loaded(store) == [("student", "2")]
    damage(disk.resolve("student", "1"))
    (disk.root / "student" / "labels.json").write_text('{"stable": "1"}')
    threading.Event().wait(0.2)
    assert loaded(store) == [("student", "2")], "a bad bundle displaces nothing"


def test_a_split_loads_its_arms_and_sends_users_to_them(manage: Make, store: ModelStore, disk: ModelRepository) -> None:
    manager = manage()
    disk.set_label("student", "canary", "2")
    manager.set_split("student", {"canary": 0.3})
    versions = [store.find("student", key=f"user-{number}").summary.version for number in range(2000)]
    assert versions.count("2") / 2000 == pytest.approx(0.3, abs=0.05)
    assert store.find("student", version="1", key="user-1").summary.version == "1"
    manager.refresh()
    assert loaded(store) == [("student", "1"), ("student", "2")]
    manager.set_split("student", {})
    assert loaded(store) == [("student", "1")]


def test_a_split_over_unknown_labels_or_models_is_refused(manage: Make, store: ModelStore) -> None:
    manager = manage()
    with pytest.raises(InvalidRequest, match="no label 'canary'; there are: stable"):
        manager.set_split("student", {"canary": 0.3})
    with pytest.raises(ModelNotServed):
        manager.set_split("nobody", {})
    assert not store.versions("student").split


def test_what_is_not_on_disk_is_named(manage: Make) -> None:
    manager = manage()
    for revision in ("9", "canary"):
        with pytest.raises(NotInRepository, match=f"student:{revision}"):
            manager.load("student", revision)
    with pytest.raises(NotInRepository, match="nobody"):
        manager.load("nobody")
    with pytest.raises(ModelUnusable, match="lower-case word"):
        manager.set_label("student", "NOT A LABEL", "1")


def test_a_new_version_is_warmed_with_what_callers_asked(manage: Make, store: ModelStore) -> None:
    manager = manage()
    asked = Query("u5", k=7)
    store.find("student").recorded.append(asked)
    seen: list[Query] = []
    recommend = type(store.find("student").recommender).recommend

    def record(self: object, queries: list[Query]) -> object:
        seen.extend(queries)
        return recommend(self, queries)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("serve.answers.recommender.Recommender.recommend", record)
        manager.load("student", "2")
    assert asked in seen


def test_states_show_disk_and_memory_side_by_side(manage: Make, disk: ModelRepository) -> None:
    publish(disk.root, "teacher", factory="Flat")
    manager = manage("student")
    shown = [
        (state.name, state.version, state.labels, state.is_default, state.model is not None)
        for state in manager.states()
    ]
    assert shown == [
        ("student", "1", ("stable",), True, True),
        ("student", "2", (), False, False),
        ("teacher", "1", (), False, False),
    ]
    with pytest.raises(NotInRepository):
        manager.states("nobody")


def test_what_is_gone_from_disk_is_still_shown_and_can_be_unloaded(
    manage: Make, store: ModelStore, disk: ModelRepository
) -> None:
    manager = manage()
    disk.set_label("student", "canary", "2")
    manager.load("student", "canary")
    (disk.root / "student" / "labels.json").write_text('{"stable": "1"}')
    assert manager.unload("student", "2", timeout=1.0) is True
    shutil.rmtree(disk.root / "student")
    assert [(state.version, state.model is not None) for state in manager.states()] == [("1", True)]
    manager.refresh()
    assert loaded(store) == [("student", "1")]
