"""A load is bounded: in time, and by what the bundle may hold."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from export.bundle import BundleError
from serve.answers.errors import UnusableBundle
from serve.live import loader
from serve.live.loader import BackgroundLoader, allowed_seconds
from serve.telemetry.metrics import Metrics
from tests.serve.repositories import publish


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return publish(tmp_path, "student", factory="Flat")


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_a_load_that_hangs_keeps_nobody_waiting(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, released: threading.Event
) -> None:
    made, real = BackgroundLoader(Metrics(CollectorRegistry())), loader.load_model

    def hang(*arguments: Any, **options: Any) -> Any:
        released.wait(60)
        return real(*arguments, **options)

    monkeypatch.setattr(loader, "LONGEST_LOAD_SECONDS", 0.05)
    monkeypatch.setattr(loader, "load_model", hang)
    with pytest.raises(UnusableBundle, match="not loaded after 0 s, given up"):
        made.load("student", bundle)
    assert "given up" in made.errors["student", "1"]
    monkeypatch.setattr(loader, "STOP_SECONDS", 0.05)
    started = time.monotonic()
    made.stop()
    assert time.monotonic() - started < 5, "SIGTERM waits for no load that hangs"
    monkeypatch.setattr(loader, "LONGEST_LOAD_SECONDS", 60.0)
    monkeypatch.setattr(loader, "load_model", real)
    assert made.load("student", bundle).summary.version == "1", "the next one has a thread of its own"
    assert made.errors == {}


def test_a_time_out_inside_a_load_is_told_as_it_is(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise TimeoutError("the disk's own")

    monkeypatch.setattr(loader, "load_model", fail)
    with pytest.raises(TimeoutError, match="the disk's own"):
        BackgroundLoader(Metrics(CollectorRegistry())).load("student", bundle)


def test_the_time_grows_with_the_bytes_and_ends(tmp_path: Path) -> None:
    assert allowed_seconds(tmp_path / "nowhere") == allowed_seconds(tmp_path) == 300
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(10**10)
    assert allowed_seconds(tmp_path) == 1300
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(10**12)
    assert allowed_seconds(tmp_path) == 14_400


@pytest.mark.parametrize("name", ["manifest.json", "index.faiss", "popularity.npy", "fold_in.onnx"])
def test_a_pipe_is_no_file_of_a_bundle(bundle: Path, name: str) -> None:
    """Opening one waits for ever for whoever writes into it."""
    (bundle / name).unlink()
    os.mkfifo(bundle / name)
    with pytest.raises(BundleError, match=name):
        loader.load_model("student", bundle)


def test_a_link_is_no_manifest(bundle: Path, tmp_path: Path) -> None:
    (bundle / "manifest.json").rename(tmp_path / "elsewhere")
    (bundle / "manifest.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="manifest"):
        loader.load_model("student", bundle)


def test_a_hole_of_a_terabyte_is_seen_by_its_length(bundle: Path) -> None:
    os.truncate(bundle / "index.faiss", 2**40)
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace('"bytes": 12845', f'"bytes": {2**40}'))
    with pytest.raises(BundleError, match=r"index\.faiss: longer than"):
        loader.load_model("student", bundle)


@pytest.mark.parametrize("beside_requests", [True, False])
def test_only_a_load_beside_requests_gives_way(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, beside_requests: bool
) -> None:
    """At the start of a server, on a busy machine, the least priority would mean minutes."""
    gave_way: list[bool] = []
    monkeypatch.setattr(loader, "give_way", lambda: gave_way.append(True))
    BackgroundLoader(Metrics(CollectorRegistry())).load("student", bundle, beside_requests=beside_requests)
    assert bool(gave_way) == beside_requests
