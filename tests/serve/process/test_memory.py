"""What workers hold of a bundle: its pages once, in the page cache, however many workers there are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import psutil
import pytest

from export.build.onnx_graphs import write_fold_in_graph, write_recommend_graph
from export.bundle import BundleContents
from export.bundle.repository import ModelRepository
from serve.client.recommender import RecommenderClient
from tests.serve.processes import serving
from tests.serve.repositories import manifest

USERS, DIM = 50, 32
FEW, MANY = 1_000, 250_000
TABLE = MANY * DIM * 4
"""Bytes of the item embeddings, and again of the index: 32 MB each."""
WORKERS = 2
KINDS = ("rss", "pss", "shared_clean", "private_dirty", "anonymous")


def publish(root: Path, items: int) -> Path:
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(items, DIM)).astype(np.float32)
    made = BundleContents(
        user_ids=[f"u{row}" for row in range(USERS)],
        item_ids=[f"i{row}" for row in range(items)],
        user_embeddings=rng.normal(size=(USERS, DIM)).astype(np.float32),
        item_embeddings=embeddings,
        seen_indptr=np.arange(USERS + 1),
        seen_indices=np.arange(USERS),
        popularity=np.arange(items),
        fold_in_embeddings=embeddings,
    )

    def write_graphs(directory: Path) -> None:
        index = faiss.IndexFlatIP(DIM)
        index.add(embeddings)
        faiss.write_index(index, str(directory / "index.faiss"))
        write_recommend_graph(directory)
        write_fold_in_graph(directory)

    card = manifest("big", "", "Flat")
    root.mkdir()
    return ModelRepository(root).publish(replace(card, model=replace(card.model, dim=DIM)), made, write_graphs)


def anonymous(pid: int) -> int:
    """Bytes of memory that no file backs: what is a process's own."""
    return sum(each.anonymous for each in psutil.Process(pid).memory_maps())


def mapped(pid: int, file: Path) -> Counter[str]:
    """Kind → bytes, over the places where a process has mapped a file."""
    kinds: Counter[str] = Counter()
    for each in psutil.Process(pid).memory_maps(grouped=True):
        if each.path == str(file):
            kinds.update({kind: getattr(each, kind) for kind in KINDS})
    return kinds


def memory_of_workers(tmp_path: Path, items: int) -> tuple[list[int], dict[str, list[Counter[str]]]]:
    """Of each worker that has answered: its own memory, and what it has mapped of each large file."""
    folder = tmp_path / str(items)
    folder.mkdir()
    bundle = publish(folder / "models", items)
    options = ["--repository", str(folder / "models"), "--workers", str(WORKERS), "--drain-wait", "0"]
    with serving(folder, *options) as server:
        for user in range(USERS):
            with RecommenderClient(server.address, 10.0, options=[("grpc.use_local_subchannel_pool", 1)]) as client:
                client.recommend(f"u{user}", k=20)
                client.recommend(f"u{user}", k=20, exact=True)
        own = [anonymous(pid) for pid in server.workers]
        files = {
            name: [mapped(pid, bundle / name) for pid in server.workers]
            for name in ("item_embeddings.npy", "index.faiss")
        }
        assert server.terminate() == 0
    return own, files


@pytest.mark.soak
@pytest.mark.timeout(180)
def test_the_tables_of_a_bundle_are_in_memory_once(tmp_path: Path) -> None:
    small, _ = memory_of_workers(tmp_path, FEW)
    large, files = memory_of_workers(tmp_path, MANY)
    assert max(large) - min(small) < TABLE / 2, "a copy of the item table alone would be more"
    for workers in files.values():
        for kinds in workers:
            assert kinds["rss"] > 0.9 * TABLE, "all of it was read"
            assert kinds["shared_clean"] > 0.9 * kinds["rss"]
            assert kinds["anonymous"] + kinds["private_dirty"] == 0
        assert sum(kinds["pss"] for kinds in workers) < 1.1 * TABLE, "all workers together hold it once"
