"""One pair of models for every benchmark of the server."""

from __future__ import annotations

from pathlib import Path

import pytest

from export.bundle import Bundle, open_bundle
from tests.benchmarks.measuring import load_real
from tests.benchmarks.serving import servers
from tests.benchmarks.serving.catalogue import publish_pair
from tests.benchmarks.serving.h2load import require_h2load


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of a repository of CiteULike's student and teacher."""
    require_h2load()
    servers.two_cores()
    return publish_pair(load_real("citeulike-t"), tmp_path_factory.mktemp("pair")).root


@pytest.fixture(scope="session")
def student(repository: Path) -> Bundle:
    """The student's bundle."""
    return open_bundle(repository / "student" / "1")
