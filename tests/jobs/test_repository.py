from __future__ import annotations

from pathlib import Path

import pytest

from export.bundle import RepositoryError
from jobs.errors import SpecError
from jobs.repository import open_place


def test_a_folder_is_a_repository_and_what_is_none_is_refused(tmp_path: Path) -> None:
    assert open_place(str(tmp_path / "models"), tmp_path / "job").models() == []
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match="file: is a file; give a directory, or s3://BUCKET/PREFIX"):
        open_place(str(tmp_path / "file"), tmp_path / "job")
    with pytest.raises(SpecError, match="'gopher' is no kind of repository; give a folder, or s3://BUCKET/PREFIX"):
        open_place("gopher://models", tmp_path / "job")
    assert open_place("s3://bucket/prefix", tmp_path / "job").place == "s3://bucket/prefix"
    assert not (tmp_path / "job").exists()
