from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import SpecError
from jobs.repository import open_repository


def test_a_folder_is_a_repository_and_what_is_none_is_refused(tmp_path: Path) -> None:
    assert open_repository(str(tmp_path / "models")).models() == []
    (tmp_path / "file").touch()
    with pytest.raises(SpecError, match="file is a file; give a folder"):
        open_repository(str(tmp_path / "file"))
    with pytest.raises(SpecError, match="'gopher' is no kind of repository"):
        open_repository("gopher://models")
