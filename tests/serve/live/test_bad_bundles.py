"""A bad bundle in a followed repository is read once, not every period; and a good one is verified once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from export.bundle.arrays import sha256_of
from export.bundle.repository import ModelRepository
from export.bundle.versions import Signature
from serve.live.manager import FIRST_PAUSE, LoadBackoff, ModelManager
from serve.live.store import ModelStore
from serve.telemetry.metrics import Metrics
from tests.serve.live.test_manager import damage
from tests.serve.repositories import publish, two_versions


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def disk(tmp_path: Path) -> ModelRepository:
    made = two_versions(tmp_path)
    made.set_label("student", "canary", "2")
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Files whose every byte was read for its checksum."""
    found: list[str] = []

    def note(path: Path) -> str:
        found.append(f"{path.parent.name}/{path.name}")
        return sha256_of(path)

    monkeypatch.setattr("export.bundle.reader.sha256_of", note)
    return found


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.fixture
def manager(disk: ModelRepository, clock: Clock, metrics: Metrics) -> Iterator[ModelManager]:
    made = ModelManager(disk, (), ModelStore(), metrics, backoff=LoadBackoff(clock))
    made.start()
    yield made
    made.stop()


def point(disk: ModelRepository, **labels: str) -> None:
    """Move labels as an operator with an editor does: nothing is verified."""
    text = "{" + ", ".join(f'"{label}": "{version}"' for label, version in labels.items()) + "}"
    (disk.root / "student" / "labels.json").write_text(text)


def failures(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("lowpass_model_load_failures_total", {"model": "student"}) or 0.0


def test_a_bad_bundle_is_not_read_again_until_something_changes(
    manager: ModelManager, disk: ModelRepository, metrics: Metrics, clock: Clock, reads: list[str]
) -> None:
    damage(disk.resolve("student", "2"))
    point(disk, stable="2", canary="2")
    for _ in range(10):
        manager.refresh()
        clock.now += 0.1
    assert failures(metrics) == 1
    assert reads.count("2/item_embeddings.npy") == 1
    damage(disk.resolve("student", "2"))
    manager.refresh()
    assert failures(metrics) == 1, "repaired: served at the next look, without a wait"
    assert [state.is_default for state in manager.states("student")] == [False, True]


def test_it_is_tried_again_ever_more_rarely(
    manager: ModelManager, disk: ModelRepository, metrics: Metrics, clock: Clock
) -> None:
    damage(disk.resolve("student", "2"))
    point(disk, stable="2")
    times = []
    for _ in range(int(7.5 * FIRST_PAUSE)):
        before = failures(metrics)
        manager.refresh()
        if failures(metrics) > before:
            times.append(clock.now - 1000.0)
        clock.now += 1.0
    assert times == [0.0, FIRST_PAUSE, 3 * FIRST_PAUSE, 7 * FIRST_PAUSE]


def test_a_label_that_moves_is_followed_at_once(
    manager: ModelManager, disk: ModelRepository, metrics: Metrics, reads: list[str]
) -> None:
    damage(disk.resolve("student", "2"))
    point(disk, stable="2")
    manager.refresh()
    manager.refresh()
    assert failures(metrics) == 1
    publish(disk.root, "student", factory="Flat", seed=3)
    point(disk, stable="3")
    manager.refresh()
    assert [state.is_default for state in manager.states("student")] == [False, False, True]


def test_what_is_asked_for_is_tried_whenever_it_is(
    manager: ModelManager, disk: ModelRepository, metrics: Metrics
) -> None:
    damage(disk.resolve("student", "2"))
    point(disk, stable="2")
    manager.refresh()
    for _ in range(2):
        with pytest.raises(Exception, match="SHA-256"):
            manager.load("student", "2")
    assert failures(metrics) == 3


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("loaded", [True, False])
def test_a_label_is_moved_after_one_verification(
    disk: ModelRepository, metrics: Metrics, reads: list[str], verify: bool, loaded: bool
) -> None:
    manager = ModelManager(disk, ("student:1",), ModelStore(), metrics, verify=verify)
    manager.start()
    try:
        if loaded:
            manager.load("student", "2")
        reads.clear()
        manager.set_label("student", "stable", "2")
        assert reads.count("2/item_embeddings.npy") == 1
        assert set(map(reads.count, reads)) == {1}
    finally:
        manager.stop()
    assert disk.labels("student")["stable"] == "2"


@pytest.mark.parametrize(("loaded", "said"), [(True, "SHA-256"), (False, "not the embeddings' inner products")])
def test_a_label_never_points_to_what_does_not_verify(
    disk: ModelRepository, metrics: Metrics, loaded: bool, said: str
) -> None:
    """Tried: damage after a load, where the model in memory is still good, and before one, which finds it first."""
    manager = ModelManager(disk, ("student:1",), ModelStore(), metrics, verify=False)
    manager.start()
    try:
        if loaded:
            manager.load("student", "2")
        damage(disk.resolve("student", "2"))
        with pytest.raises(Exception, match=said):
            manager.set_label("student", "stable", "2")
    finally:
        manager.stop()
    assert disk.labels("student")["stable"] == "1"


def test_times_of_change_beyond_the_bundles_own_do_not_matter(tmp_path: Path) -> None:
    clock: Any = Clock()
    backoff = LoadBackoff(clock)
    file = tmp_path / "student" / "1" / "file"
    file.parent.mkdir(parents=True)
    file.write_text("a")

    def look() -> Signature:
        return ModelRepository(tmp_path).signature("student", ["1"])

    backoff.failed("student", look)
    assert not backoff.allows("student", look)
    assert backoff.allows("student", frozenset)
    assert backoff.allows("teacher", look)
    os.utime(file, (1, 1))
    assert backoff.allows("student", look)
    backoff.succeeded("student")
    assert backoff.allows("student", look)
