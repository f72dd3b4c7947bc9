"""Index files from a stranger: refused, or answering with row numbers. What could kill the process runs in a child."""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import signal
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import pytest

from export.bundle import BundleError
from export.bundle.index_file import INDEX_KINDS, check_index_header
from serve.answers.errors import UnusableBundle
from serve.answers.indexes.faiss_index import FaissIndex
from serve.live.comparison import compare_index
from tests.serve.answers.indexes.test_faiss_index import KINDS, build, items

ROTATED = ("RR8,PQ4x4np", {"k_factor": 4})
CHANGES = int(os.environ.get("FUZZ_EXAMPLES", "300"))
SECONDS = 200.0
MEMORY = 2 << 30
NUMBERS = (0, 1, 2, 3, 5, 31, 33, 255, 1 << 16, 1 << 20, 2**31 - 1, 2**31, 2**32, 1 << 40, 2**63 - 1, 2**63, 2**64 - 1)


def change(good: bytes, rng: random.Random) -> bytes:
    """Mostly near where parts begin or the file ends: that is where lengths and settings stand."""
    heads = [place for letters in INDEX_KINDS if (place := good.find(letters)) >= 0]
    spoilt = bytearray(good)
    for _ in range(rng.choice((1, 1, 2))):
        near = [rng.choice(heads) + rng.randrange(90), len(spoilt) - 1 - rng.randrange(200), rng.randrange(len(spoilt))]
        at = min(max(rng.choice(near), 0), len(spoilt) - 1)
        kind = rng.randrange(5)
        if kind == 0:
            spoilt[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            spoilt[at : at + 4] = struct.pack("<I", rng.choice(NUMBERS) % 2**32)
        elif kind == 2:
            spoilt[at : at + 8] = struct.pack("<Q", rng.choice(NUMBERS))
        elif kind == 3:
            spoilt[at : at + rng.choice((0, 8))] = rng.randbytes(8)
        else:
            del spoilt[at : at + rng.choice((1, 4, 8, 64))]
    return bytes(spoilt)


def try_one(path: Path, search: dict[str, int], in_memory: bool) -> str:
    stored = items()
    try:
        check_index_header(path, *stored.shape)
        index = FaissIndex.open(path, search, stored, in_memory=in_memory)
        compare_index(index, stored, stored[:8], path, ann_recall=0.0, k=20)
    except (BundleError, UnusableBundle) as error:
        return "refused" if str(path) in str(error) or "search parameters" in str(error) else f"nameless: {error}"
    for k in (1, 300, 500):
        _, rows = index.search(stored[:16], k)
        assert rows.min() >= -1
        assert rows.max() < len(stored)
    return "answered"


def try_all(directory: Path, factory: str, search: dict[str, int], seed: int) -> None:
    """In a child: one line a change, begun before it is tried, so that the last line is what killed it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    faiss.omp_set_num_threads(1)
    good = faiss.serialize_index(build(factory, items())).tobytes()
    path = directory / "index.faiss"
    with (directory / "log").open("a") as log:
        started = time.monotonic()
        for number in range(CHANGES):
            if time.monotonic() - started > SECONDS:
                break
            path.write_bytes(change(good, random.Random(f"{factory} {seed} {number}")))
            log.write(f"\n{number} ")
            log.flush()
            signal.alarm(20)
            log.write(try_one(path, search, in_memory=number % 2 == 0))
            signal.alarm(0)


def outcomes(directory: Path) -> Iterator[str]:
    for line in (directory / "log").read_text().split("\n")[1:]:
        yield line.partition(" ")[2] or f"killed by change {line}"


@pytest.mark.fuzz
@pytest.mark.soak
@pytest.mark.parametrize(("factory", "search"), [*KINDS, ROTATED])
def test_no_change_of_an_index_file_kills_the_server(tmp_path: Path, factory: str, search: dict[str, int]) -> None:
    child = multiprocessing.get_context("spawn").Process(target=try_all, args=(tmp_path, factory, search, 1))
    child.start()
    child.join(SECONDS + 60)
    child.kill()
    found = Counter(outcomes(tmp_path))
    assert set(found) <= {"refused", "answered"}, found
    assert found["refused"] > 0.1 * found.total()
    assert child.exitcode == 0


@pytest.mark.parametrize("in_memory", [True, False])
def test_blocks_of_codes_that_are_not_there_are_never_scanned(tmp_path: Path, in_memory: bool) -> None:
    """FAISS takes the number of blocks from the file, and reads past the end of the codes."""
    path = tmp_path / "index.faiss"
    index: Any = build("PQ4x4fs", items())
    content = faiss.serialize_index(index).tobytes()
    blocks = struct.pack("<QQ", index.ntotal2, index.M2)
    path.write_bytes(content.replace(blocks, struct.pack("<QQ", index.ntotal2 + 2**32, index.M2)))
    with pytest.raises(BundleError, match="is not of 500 vectors"):
        FaissIndex.open(path, {"k_factor": 4}, items(), in_memory=in_memory)


@pytest.mark.parametrize("row", [-2, 500, 3])
def test_rows_in_lists_are_each_row_once(tmp_path: Path, row: int) -> None:
    path = tmp_path / "index.faiss"
    index: Any = build("IVF4,SQ8", items())
    ids = faiss.rev_swig_ptr(index.invlists.get_ids(1), index.invlists.list_size(1))
    ids[-1] = row if row != 3 else ids[0]
    faiss.write_index(index, str(path))
    with pytest.raises(BundleError, match="every row once"):
        FaissIndex.open(path, {"nprobe": 1, "k_factor": 2}, items())


def test_a_length_beyond_the_file_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    content = faiss.serialize_index(build("HNSW8", items())).tobytes()
    path.write_bytes(content[:38] + struct.pack("<Q", 1 << 36) + content[46:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BundleError, match="cannot read"):
        FaissIndex.open(path, {"efSearch": 32}, items())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_graphs_and_lists_are_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    index: Any = build("HNSW8", items())
    few = build("Flat", items()[:3])
    index.storage, kept = few, index.storage
    faiss.write_index(index, str(path))
    index.storage = kept
    with pytest.raises(BundleError):
        FaissIndex.open(path, {"efSearch": 32}, items())


@pytest.mark.parametrize("keep", [-6, -7, -8])
@pytest.mark.parametrize("factory", ["PQ4x4", "RR8,PQ4x4np"])
def test_a_product_quantiser_that_was_cut_is_never_mapped(tmp_path: Path, factory: str, keep: int) -> None:
    """FAISS 1.15 ends the process by SIGSEGV where such a file is mapped."""
    path = tmp_path / "index.faiss"
    path.write_bytes(faiss.serialize_index(build(factory, items())).tobytes()[:keep])
    with pytest.raises(BundleError, match="cannot read"):
        FaissIndex.open(path, {})


@pytest.mark.parametrize("factory", [*(factory for factory, _ in KINDS), ROTATED[0]])
def test_the_kinds_that_export_makes_are_known(tmp_path: Path, factory: str) -> None:
    path = tmp_path / "index.faiss"
    faiss.write_index(build(factory, items()), str(path))
    check_index_header(path, 500, 8)
    with pytest.raises(BundleError, match="500 items of dimension 8, manifest says 499 of 8"):
        check_index_header(path, 499, 8)


@pytest.mark.parametrize(
    ("index", "wrong"),
    [
        (faiss.IndexIDMap(faiss.IndexFlatIP(8)), "no kind of index"),
        (faiss.IndexFlatL2(8), "no kind of index"),
        (faiss.index_factory(8, "HNSW8", faiss.METRIC_L2), "inner product"),
        (faiss.index_factory(8, "SQ8", faiss.METRIC_INNER_PRODUCT), "not a trained index"),
    ],
)
def test_an_index_of_another_kind_or_metric_is_seen_without_faiss(
    tmp_path: Path, index: faiss.Index, wrong: str
) -> None:
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    with pytest.raises(BundleError, match=wrong):
        check_index_header(tmp_path / "index.faiss", 0, 8)
