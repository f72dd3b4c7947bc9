"""A toy bundle with a known answer: user u likes item u best, and has item (u + 1) % I."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distill.data.interactions import Interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.run import Run, open_run, write_run
from export.bundle import BundleContents, IndexCard, Manifest, ModelCard, write_bundle
from export.bundle.arrays import read_header
from export.bundle.index_file import pack_index_header

USERS, ITEMS, DIM = 3, 4, 4
PLACEHOLDER = b"placeholder"


def toy_manifest(name: str = "toy", version: str = "1", dim: int = DIM) -> Manifest:
    return Manifest(
        schema_version=1,
        bundle_id="",
        producer="lowpass test",
        created="2026-01-01T00:00:00+00:00",
        model=ModelCard(name, version, "bprmf", "scratch", dim, (USERS + ITEMS) * dim),
        counts={},
        quality={"recall@20": 0.5, "ndcg@20": 0.25, "teacher_recall@20": None, "convention": "toy"},
        data={"name": "toy", "fingerprint": "0" * 64},
        index=IndexCard("Flat", {}, 1.0, 2, 16.0, []),
        fold_in={"ridge": 0.1, "gram_weight": 0.01},
        files={},
    )


def toy_contents(dtype: str = "float32") -> BundleContents:
    return BundleContents(
        user_ids=["ann", "bob", "çağ"],
        item_ids=["i0", "i1", "i2", "i3"],
        user_embeddings=np.eye(USERS, DIM, dtype=dtype),
        item_embeddings=np.eye(ITEMS, DIM, dtype=dtype),
        seen_indptr=np.array([0, 1, 2, 3]),
        seen_indices=np.array([1, 2, 3]),
        popularity=np.array([3, 1, 2, 0]),
        item_titles=["Zero", "One", "Two — deux", ""],
        item_categories=[["a", "b"], [], ["b"], ["c"]],
        heldout_indptr=np.array([0, 1, 2, 2]),
        heldout_indices=np.array([0, 1]),
    )


def write_placeholders(directory: Path) -> None:
    _, (items, dim), _ = read_header(directory / "item_embeddings.npy")
    (directory / "index.faiss").write_bytes(pack_index_header(b"IxFI", items, dim) + PLACEHOLDER)
    for name in ("recommend.onnx", "fold_in.onnx"):
        (directory / name).write_bytes(PLACEHOLDER)


def write_toy(target: Path, contents: BundleContents | None = None) -> Manifest:
    return write_bundle(target, toy_manifest(), contents or toy_contents(), write_placeholders)


def toy_interactions(num_users: int = 120, num_items: int = 90) -> Interactions:
    return synthesize(SyntheticOptions(num_users=num_users, num_items=num_items, num_clusters=6, seed=3))


def toy_run(path: Path, data: Interactions, dim: int, teacher: Path | None = None, *, scale: float = 1.0) -> Run:
    """A run whose embeddings are the rank-`dim` factors of the training matrix: quick, and good enough to rank."""
    left, singular, right = np.linalg.svd(data.train.toarray(), full_matrices=False)
    root = np.sqrt(singular[:dim])
    config = {
        "backbone": "svd",
        "method": "scratch",
        "dim": dim,
        "data": {"name": data.name, "fingerprint": data.fingerprint},
        "teacher": str(teacher) if teacher else None,
        "seed": 0,
    }
    users, items = left[:, :dim] * root * scale, right[:dim].T * root
    write_run(path, config, users.astype(np.float32), items.astype(np.float32), {})
    return open_run(path)
