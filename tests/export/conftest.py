from __future__ import annotations

from pathlib import Path

import pytest

from distill.data.interactions import Interactions, save_interactions
from export.build.publish import export_run
from export.bundle.repository import ModelRepository
from tests.export.toy import toy_interactions, toy_run, write_toy


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A written toy bundle, to be spoilt."""
    target = tmp_path / "toy" / "1"
    write_toy(target)
    return target


@pytest.fixture(scope="session")
def data() -> Interactions:
    return toy_interactions()


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory, data: Interactions) -> Path:
    """Data directory `data`, runs `teacher` and `student`, and both exported into `models`. Not to be changed."""
    root = tmp_path_factory.mktemp("export")
    save_interactions(data, root / "data")
    teacher = toy_run(root / "teacher", data, 16)
    student = toy_run(root / "student", data, 4, teacher=root / "teacher")
    repository = ModelRepository(root / "models")
    export_run(teacher, data, repository, "teacher")
    export_run(student, data, repository, "student")
    return root
