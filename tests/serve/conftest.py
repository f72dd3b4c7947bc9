from __future__ import annotations

from pathlib import Path

import pytest

from export.bundle.repository import ModelRepository
from tests.serve.repositories import publish


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    """student: version 1 (Flat) labelled canary, version 2 (HNSW) labelled stable; teacher: version 1 in float16."""
    root: Path = tmp_path_factory.mktemp("repository")
    publish(root, "student", factory="Flat", seed=1)
    publish(root, "student", factory="HNSW8", seed=2)
    publish(root, "teacher", factory="Flat", seed=3, dtype="float16")
    made = ModelRepository(root)
    made.set_label("student", "canary", "1")
    made.set_label("student", "stable", "2")
    return made
