from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.jobs.toy import run, write_job


@pytest.fixture(scope="session")
def finished_job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `job.toml`, which has run once and published. Not to be changed."""
    folder = tmp_path_factory.mktemp("job")
    assert run(write_job(folder)).outcome == "published"
    return folder


@pytest.fixture
def job(finished_job: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    folder = tmp_path / "job"
    shutil.copytree(finished_job, folder, symlinks=True)
    return folder
