from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from distill.data.public_sets import CATALOG, find_entry
from distill.data.readers import READERS
from distill.errors import DataError

REAL_DATA = Path(__file__).parents[4] / "shared" / "data"


def test_entries_are_pinned_and_complete() -> None:
    assert list(CATALOG) == ["citeulike-t", "gowalla", "ml-100k", "ml-1m"]
    for entry in CATALOG.values():
        assert entry.format_name in READERS
        assert entry.licence
        for file in entry.files:
            assert re.fullmatch(r"https://raw\.githubusercontent\.com/[^/]+/[^/]+/[0-9a-f]{40}/.+", file.url)
            assert file.url.endswith("/" + file.name)
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)


def test_unknown_entry_lists_the_known() -> None:
    with pytest.raises(DataError, match="no data set 'netflix' in the catalogue; it has citeulike-t, gowalla"):
        find_entry("netflix")


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason="no ../shared/data here")
@pytest.mark.real_data
@pytest.mark.parametrize("name", CATALOG)
def test_checksums_are_those_of_the_files_at_hand(name: str) -> None:
    source = (REAL_DATA / name / "SOURCE.txt").read_text()
    for file in CATALOG[name].files:
        content = (REAL_DATA / name / file.name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (file.size, file.sha256)
        owner, repository, commit = file.url.split("/")[3:6]
        assert f"{owner}/{repository}" in source
        assert commit in source
