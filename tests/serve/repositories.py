"""Real model repositories for the serving tests: random tastes, real FAISS and ONNX files, no torch."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import scipy.sparse as sp

from export.build.ann import write_index
from export.build.fold_in import FoldInSettings, fit_fold_in
from export.build.onnx_graphs import write_fold_in_graph, write_recommend_graph
from export.bundle import BundleContents, IndexCard, Manifest, ModelCard, Publisher
from export.bundle.repository import ModelRepository
from tests.export.first_schema import write_first_fold_in_graph

USERS, ITEMS, DIM = 60, 400, 8
SEEN_EACH = 7


def two_versions(root: Path) -> ModelRepository:
    """A repository of versions 1 and 2 of "student"; `stable` is 1, and there is no other label."""
    for seed in (1, 2):
        publish(root, "student", factory="Flat", seed=seed)
    made = ModelRepository(root)
    made.set_label("student", "stable", "1")
    return made


def contents(seed: int = 0, dtype: str = "float32", users: int = USERS, items: int = ITEMS) -> BundleContents:
    rng = np.random.default_rng(seed)
    seen = np.concatenate([np.sort(rng.choice(items, SEEN_EACH, replace=False)) for _ in range(users)])
    counts = np.bincount(seen, minlength=items)
    vectors, embeddings = (rng.normal(size=(rows, DIM)).astype(dtype) for rows in (users, items))
    had = sp.csr_matrix((np.ones(len(seen), np.float32), seen, np.arange(users + 1) * SEEN_EACH), shape=(users, items))
    return BundleContents(
        user_ids=[f"u{row}" for row in range(users)],
        item_ids=[f"i{row}" for row in range(items)],
        user_embeddings=vectors,
        item_embeddings=embeddings,
        seen_indptr=np.arange(users + 1) * SEEN_EACH,
        seen_indices=seen,
        fold_in_embeddings=fit_fold_in(had, vectors, FoldInSettings()).astype(dtype),
        popularity=np.argsort(-counts, kind="stable"),
        item_titles=[f"Title of {row}" for row in range(items)],
        item_categories=[["even"] if row % 2 == 0 else ["odd", "prime"][: 1 + (row == 7)] for row in range(items)],
    )


def manifest(name: str, version: str, factory: str) -> Manifest:
    search = {"efSearch": 64} if factory.startswith("HNSW") else {}
    return Manifest(
        schema_version=1,
        bundle_id="",
        producer="lowpass test",
        created="2026-01-01T00:00:00+00:00",
        model=ModelCard(name, version, "bprmf", "freqd", DIM, (USERS + ITEMS) * DIM, "teacher"),
        counts={},
        quality={"recall@20": 0.5, "ndcg@20": 0.25, "kept_recall": 0.75, "convention": "toy"},
        data={"name": "toy", "fingerprint": "0" * 64},
        index=IndexCard(factory, search, 0.99, 20, 4.0 * DIM, []),
        fold_in={},
        files={},
    )


def publish(
    root: Path,
    name: str = "student",
    version: str = "",
    factory: str = "HNSW8",
    *,
    seed: int = 0,
    dtype: str = "float32",
    made: BundleContents | None = None,
    repository: Publisher | None = None,
) -> Path:
    """Publish one bundle, or those of all shards; returns the directory of the first."""
    made = made or contents(seed, dtype)

    def write_graphs(directory: Path) -> None:
        items = np.ascontiguousarray(made.item_embeddings, dtype=np.float32)
        index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
        index.add(items)
        write_recommend_graph(directory)
        if (directory / "index.faiss").exists():  # of another shard
            return
        write_index(index, directory / "index.faiss")
        if made.fold_in_embeddings is None:
            write_first_fold_in_graph(directory, np.eye(DIM))
        else:
            write_fold_in_graph(directory)

    return (repository or ModelRepository(root)).publish(manifest(name, version, factory), made, write_graphs)
