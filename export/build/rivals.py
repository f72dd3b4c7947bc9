"""The honest rivals of a student: its teacher made small without any distillation, at the same bytes per item.

`<teacher>-svd<d>` is the rank-d cut of the teacher's scores, d float32 numbers an item. `<teacher>-pq<4d>`
keeps the teacher's users and product-quantises its items to 4d bytes. Both are ordinary bundles in the
repository, measured like every other one, so a table can set them beside the student.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from tqdm import tqdm

from distill.methods.svd import truncated_svd
from export.build.ann import code_size
from export.build.fold_in import FoldInWeights, build_whitening
from export.build.index_choice import choose_index, draw_questions, measure_recall
from export.build.precision import codebook_size, quantize_items
from export.build.publish import build_manifest, compare_with_teacher, describe_fold_in, write_graphs
from export.build.quality import as_csr, measure_quality
from export.bundle import Bundle, BundleContents, ExportError, IndexCard, ModelCard, open_bundle
from export.bundle.repository import ModelRepository

BYTES_PER_NUMBER = 4


@dataclass(frozen=True)
class _Rival:
    """What sets a rival apart from its teacher."""

    name: str
    method: str
    note: str
    users: npt.NDArray[Any]
    items: npt.NDArray[Any]
    index: faiss.Index
    index_card: IndexCard


def build_rivals(
    repository: ModelRepository, teacher: str, dim: int, *, ann_recall: float = 0.99, seed: int = 0
) -> list[Path]:
    """Build both rivals of a teacher as bundles.

    Args:
        repository: Holds the teacher and takes the rivals.
        teacher: Model name of the teacher; its default version is used.
        dim: Dimension d of the student they are to match in bytes per item.
        ann_recall: What the SVD's index must find of the exact top 20.
        seed: Of the samples of users.

    Returns:
        The two bundles' directories.

    Raises:
        ExportError: `dim` is not below the teacher's.
        BundleError: The teacher is not there or does not open.
    """
    bundle = open_bundle(repository.resolve(teacher), verify=True)
    if not 1 <= dim < bundle.manifest.model.dim:
        raise ExportError(f"dim {dim}: must be from 1 to below the teacher's {bundle.manifest.model.dim}")
    rng = np.random.default_rng(seed)
    makers: tuple[Callable[[], _Rival], ...] = (
        lambda: _cut(bundle, dim, ann_recall, rng),
        lambda: _quantized(bundle, BYTES_PER_NUMBER * dim, rng),
    )
    bar = tqdm(makers, desc="rivals", unit="rival", disable=None, leave=False)
    return [_publish(repository, bundle, make()) for make in bar]


def _cut(bundle: Bundle, dim: int, ann_recall: float, rng: np.random.Generator) -> _Rival:
    users, items = truncated_svd(bundle.user_embeddings, bundle.item_embeddings, dim)
    index, card = choose_index(items, users, _seen(bundle), ann_recall, rng)
    note = f"rank-{dim} approximation of the teacher's score matrix, not trained"
    return _Rival(f"{bundle.manifest.model.name}-svd{dim}", f"svd{dim}", note, users, items, index, card)


def _quantized(bundle: Bundle, code_bytes: int, rng: np.random.Generator) -> _Rival:
    users = np.ascontiguousarray(bundle.user_embeddings, dtype=np.float32)
    index, decoded, factory = quantize_items(bundle.item_embeddings, code_bytes)
    questions = draw_questions(users, _seen(bundle), rng)
    found, median_us = questions.answer(index, {}, decoded)
    ann_recall = measure_recall(found, questions.answer_exactly(decoded))
    original = np.ascontiguousarray(bundle.item_embeddings, dtype=np.float32)
    row: dict[str, Any] = {
        "factory": factory,
        "search": {},
        "ann_recall": round(ann_recall, 6),
        "ann_recall_of_original": round(measure_recall(found, questions.answer_exactly(original)), 6),
        "median_us": round(median_us, 1),
        "codebook_bytes": codebook_size(index),
    }
    card = IndexCard(factory, {}, row["ann_recall"], questions.k, float(code_size(index)), [row])
    note = "item_embeddings.npy holds vectors decoded from the index; bytes_per_item counts the codes alone"
    name = f"{bundle.manifest.model.name}-pq{code_bytes}"
    return _Rival(name, f"pq{code_bytes}", note, users, decoded, index, card)


def _seen(bundle: Bundle) -> sp.csr_matrix:
    return as_csr(bundle.seen_indptr, bundle.seen_indices, len(bundle.item_ids))


def _publish(repository: ModelRepository, teacher: Bundle, rival: _Rival) -> Path:
    contents = _contents_like(teacher, rival.users, rival.items)
    settings = teacher.manifest.fold_in
    weights = FoldInWeights(
        float(settings.get("relative_ridge", FoldInWeights.relative_ridge)),
        float(settings.get("gram_weight", FoldInWeights.gram_weight)),
    )
    card = ModelCard(
        name=rival.name,
        version="",
        backbone=teacher.manifest.model.backbone,
        method=rival.method,
        dim=rival.items.shape[1],
        num_parameters=rival.users.size + rival.items.size,
        teacher=teacher.manifest.model.name,
    )
    manifest = build_manifest(
        card,
        {**_measure(contents, teacher), "note": rival.note},
        dict(teacher.manifest.data),
        rival.index_card,
        describe_fold_in(weights, rival.items, {}),
    )
    return repository.publish(manifest, contents, write_graphs(rival.index, build_whitening(rival.items, weights)))


def _measure(contents: BundleContents, teacher: Bundle) -> dict[str, Any]:
    if contents.heldout_indptr is None or contents.heldout_indices is None:
        return {}
    num_items = len(contents.item_ids)
    seen = as_csr(contents.seen_indptr, contents.seen_indices, num_items)
    relevant = as_csr(contents.heldout_indptr, contents.heldout_indices, num_items)
    quality: dict[str, Any] = dict(measure_quality(contents.user_embeddings, contents.item_embeddings, seen, relevant))
    return {
        **quality,
        **compare_with_teacher(quality, teacher.manifest.quality),
        "convention": teacher.manifest.quality.get("convention", ""),
    }


def _contents_like(bundle: Bundle, users: npt.NDArray[Any], items: npt.NDArray[Any]) -> BundleContents:
    """The bundle's contents with other embeddings."""
    num_items = len(bundle.item_ids)
    names, indptr, indices = bundle.category_names, bundle.category_indptr, bundle.category_indices
    categories = None
    if names is not None and indptr is not None and indices is not None:
        categories = [names.take(indices[indptr[row] : indptr[row + 1]]) for row in range(num_items)]
    return BundleContents(
        user_ids=bundle.user_ids.take(range(len(bundle.user_ids))),
        item_ids=bundle.item_ids.take(range(num_items)),
        user_embeddings=users,
        item_embeddings=items,
        seen_indptr=bundle.seen_indptr,
        seen_indices=bundle.seen_indices,
        popularity=bundle.popularity,
        item_titles=bundle.item_titles.take(range(num_items)) if bundle.item_titles else None,
        item_categories=categories,
        heldout_indptr=bundle.heldout_indptr,
        heldout_indices=bundle.heldout_indices,
    )
