from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from distill.data.prepare import PrepareOptions
from distill.data.public_sets import ATTEMPTS, CATALOG, CatalogEntry, CatalogFile, fetch, find_entry, take_local
from distill.data.readers import READERS
from distill.errors import DataError
from tests.distill.data.file_server import FileServer, serve_files

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


CONTENT = bytes(range(256)) * 4000
OTHER = b"1 5\n"


def catalog_file(name: str, content: bytes) -> CatalogFile:
    return CatalogFile(name, f"https://nowhere.invalid/{name}", hashlib.sha256(content).hexdigest(), len(content))


ENTRY = CatalogEntry("toy", "", "csv", PrepareOptions(), "", (catalog_file("big.bin", CONTENT),))
PAIR = CatalogEntry("toy", "", "csv", PrepareOptions(), "", (*ENTRY.files, catalog_file("small.txt", OTHER)))


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve_files(FileServer({"/toy/big.bin": CONTENT, "/toy/small.txt": OTHER})) as state:
        yield state


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_fetch_gets_every_file_once(server: FileServer, tmp_path: Path) -> None:
    paths = fetch(PAIR, tmp_path / "raw", mirror=server.url + "/")
    assert [path.read_bytes() for path in paths] == [CONTENT, OTHER]
    assert names(tmp_path / "raw") == ["big.bin", "small.txt"]
    fetch(PAIR, tmp_path / "raw", mirror=server.url)
    assert server.asked == [("/toy/big.bin", None), ("/toy/small.txt", None)]


def test_fetch_replaces_a_damaged_file(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(CONTENT[:-1] + b"x")
    assert fetch(ENTRY, tmp_path, mirror=server.url)[0].read_bytes() == CONTENT


def test_fetch_resumes_what_is_there(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "big.bin.part").write_bytes(CONTENT[:1000])
    assert fetch(ENTRY, tmp_path, mirror=server.url)[0].read_bytes() == CONTENT
    assert server.asked == [("/toy/big.bin", "bytes=1000-")]


def test_fetch_resumes_by_itself_after_a_cut(server: FileServer, tmp_path: Path) -> None:
    server.cuts, server.cut_after = 2, 300_000
    assert fetch(ENTRY, tmp_path, mirror=server.url)[0].read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=600000-"]


def test_fetch_that_stays_cut_keeps_its_part_for_the_next_call(server: FileServer, tmp_path: Path) -> None:
    server.cuts, server.cut_after = ATTEMPTS, 1000
    with pytest.raises(DataError, match=r"cut at 3000 of 1024000 bytes; run the command again to resume"):
        fetch(ENTRY, tmp_path, mirror=server.url)
    assert names(tmp_path) == ["big.bin.part"]
    assert fetch(ENTRY, tmp_path, mirror=server.url)[0].read_bytes() == CONTENT
    assert names(tmp_path) == ["big.bin"]


def test_fetch_starts_over_where_the_server_has_no_ranges(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "big.bin.part").write_bytes(b"y" * 1000)
    assert fetch(ENTRY, tmp_path, mirror=server.url)[0].read_bytes() == CONTENT


def test_fetch_finishes_a_part_that_is_whole(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "big.bin.part").write_bytes(CONTENT)
    assert fetch(ENTRY, tmp_path, mirror=server.url)[0].read_bytes() == CONTENT
    assert server.asked == []


def test_fetch_drops_a_part_that_is_too_long(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "big.bin.part").write_bytes(CONTENT + b"z")
    assert fetch(ENTRY, tmp_path, mirror=server.url)[0].read_bytes() == CONTENT


@pytest.mark.parametrize("part", [b"", b"w" * 500])
def test_fetch_refuses_a_wrong_checksum_and_starts_clean(server: FileServer, tmp_path: Path, part: bytes) -> None:
    good = server.files["/toy/big.bin"]
    server.files["/toy/big.bin"] = b"w" * len(CONTENT)
    (tmp_path / "big.bin.part").write_bytes(part)
    with pytest.raises(DataError, match=r"big\.bin: sha256 is [0-9a-f]{64}, expected [0-9a-f]{64}; try again"):
        fetch(ENTRY, tmp_path, mirror=server.url)
    assert names(tmp_path) == []
    server.files["/toy/big.bin"] = good
    assert fetch(ENTRY, tmp_path, mirror=server.url)[0].read_bytes() == CONTENT


def test_fetch_refuses_more_bytes_than_expected(server: FileServer, tmp_path: Path) -> None:
    server.files["/toy/big.bin"] = CONTENT * 3
    with pytest.raises(DataError, match=r"longer than the 1024000 bytes expected"):
        fetch(ENTRY, tmp_path, mirror=server.url)
    assert not (tmp_path / "big.bin").exists()


def test_fetch_starts_over_where_the_server_has_less(server: FileServer, tmp_path: Path) -> None:
    server.files["/toy/big.bin"] = CONTENT[:500]
    (tmp_path / "big.bin.part").write_bytes(CONTENT[:1000])
    with pytest.raises(DataError, match=r"cut at \d+ of 1024000"):
        fetch(ENTRY, tmp_path, mirror=server.url)


def test_fetch_follows_redirects_but_not_off_https(server: FileServer, tmp_path: Path) -> None:
    server.redirects["/toy/big.bin"] = server.url + "/moved"
    server.files["/moved"] = CONTENT
    assert fetch(ENTRY, tmp_path / "one", mirror=server.url)[0].read_bytes() == CONTENT
    server.redirects["/toy/big.bin"] = f"file://{tmp_path}/one/big.bin"
    with pytest.raises(DataError, match=r"the server answered 302"):
        fetch(ENTRY, tmp_path / "two", mirror=server.url)
    assert not (tmp_path / "two" / "big.bin").exists()


def test_fetch_names_what_the_server_answered(server: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/none/toy/big\.bin: the server answered 404 .*; give --mirror or"):
        fetch(ENTRY, tmp_path, mirror=server.url + "/none")


def test_fetch_without_a_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(DataError, match=r"cannot connect \(.*refused.*\); give --mirror or --from-file"):
        fetch(ENTRY, tmp_path, mirror=f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("mirror", ["http://example.org", "ftp://127.0.0.1", "file:///tmp"])
def test_fetch_allows_https_only(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(DataError, match="only https is allowed"):
        fetch(ENTRY, tmp_path, mirror=mirror)


def test_take_local_from_a_file_and_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "copy.dat").write_bytes(CONTENT)
    assert take_local(ENTRY, tmp_path / "copy.dat", tmp_path / "raw")[0].read_bytes() == CONTENT
    (tmp_path / "raw" / "small.txt").write_bytes(OTHER)
    take_local(PAIR, tmp_path / "raw", tmp_path / "again")
    assert names(tmp_path / "again") == ["big.bin", "small.txt"]
    take_local(PAIR, tmp_path / "again", tmp_path / "again")
    assert names(tmp_path / "again") == ["big.bin", "small.txt"]


def test_take_local_refuses_what_is_not_the_set(tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(DataError, match=r"big\.bin: sha256 is .*; give the file of the catalogue's version"):
        take_local(ENTRY, tmp_path, tmp_path / "raw")
    with pytest.raises(DataError, match=r"'toy' has several files \(big\.bin, small\.txt\); give the folder"):
        take_local(PAIR, tmp_path / "big.bin", tmp_path / "raw")
    with pytest.raises(DataError, match=r"gone: no such file or folder; check"):
        take_local(PAIR, tmp_path / "gone", tmp_path / "raw")
    (tmp_path / "big.bin").write_bytes(CONTENT)
    with pytest.raises(DataError, match=r"small\.txt: missing; 'toy' needs it"):
        take_local(PAIR, tmp_path, tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
