"""The honest rivals of a student: its teacher made small without any distillation, at the same bytes per item.

`<teacher>-svd<d>` is the rank-d cut of the teacher's scores, d float32 numbers an item. `<teacher>-pq<4d>` keeps the
teacher's users and product-quantises its items to 4d bytes. Both are ordinary bundles in the repository, measured like
every other one, so a table can set them beside the student. The teacher's bundle is all they are made of.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from tqdm import tqdm

from distill.methods.svd import truncated_svd
from export.build.fold_in import FoldInSettings, fit_fold_in
from export.build.index_candidates import IndexCandidate
from export.build.index_choice import choose_index, climb, count_bytes, describe_index
from export.build.precision import PRODUCT, codebook_size, store
from export.build.publish import ChosenIndex, publish_version
from export.build.quality import as_csr, compare_with_teacher, measure_bundle
from export.build.questions import draw_questions, measure_recall
from export.bundle import Bundle, BundleContents, ExportError, Repository, open_bundle

BYTES_PER_NUMBER = 4


@dataclass(frozen=True)
class _Rival:
    """What sets a rival apart from its teacher."""

    method: str
    note: str
    users: npt.NDArray[Any]
    items: npt.NDArray[Any]
    index: ChosenIndex


def build_rivals(
    repository: Repository, teacher: str, dim: int, *, ann_recall: float = 0.99, seed: int = 0
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
    # The quick one first: choosing an index for the other may take minutes, and what is published stays.
    makers: tuple[Callable[[], _Rival], ...] = (
        lambda: _quantized(bundle, BYTES_PER_NUMBER * dim, rng),
        lambda: _cut(bundle, dim, ann_recall, rng),
    )
    bar = tqdm(makers, desc="rivals", unit="rival", disable=None, leave=False)
    return [_publish(repository, bundle, make()) for make in bar]


def _cut(bundle: Bundle, dim: int, ann_recall: float, rng: np.random.Generator) -> _Rival:
    users, items = truncated_svd(bundle.user_embeddings, bundle.item_embeddings, dim)
    index = choose_index(items, users, _seen(bundle), ann_recall, rng)
    return _Rival(
        f"svd{dim}", f"rank-{dim} approximation of the teacher's score matrix, not trained", users, items, index
    )


def _quantized(bundle: Bundle, code_bytes: int, rng: np.random.Generator) -> _Rival:
    stored = store(bundle.user_embeddings, bundle.item_embeddings, f"{PRODUCT}{code_bytes}")
    questions = draw_questions(stored.users, _seen(bundle), rng)
    exact = questions.answer_exactly(stored.items)
    rows = climb(stored.index, IndexCandidate(stored.factory), stored.items, questions, exact, 0.0)
    (row,) = count_bytes(stored.index, rows, stored.items)
    original = np.ascontiguousarray(bundle.item_embeddings, dtype=np.float32)
    found = questions.answer_at_once(stored.index)
    row |= {
        "ann_recall_of_original": round(measure_recall(found, questions.answer_exactly(original)), 6),
        "codebook_bytes": codebook_size(stored.index),
    }
    note = "item_embeddings.npy holds vectors decoded from the index; bytes_per_item counts the codes alone"
    index = (stored.index, describe_index(row, questions.k, [row]))
    return _Rival(f"{PRODUCT}{code_bytes}", note, stored.users, stored.items, index)


def _seen(bundle: Bundle) -> sp.csr_matrix:
    return as_csr(bundle.seen_indptr, bundle.seen_indices, len(bundle.item_ids))


def _publish(repository: Repository, teacher: Bundle, rival: _Rival) -> Path:
    of_teacher, settings = teacher.manifest, teacher.manifest.fold_in
    contents = _contents_like(teacher, rival.users, rival.items)
    quality = measure_bundle(contents, of_teacher.quality.get("eval_users"))
    quality |= compare_with_teacher(quality, of_teacher.quality) | {"note": rival.note}
    fold_in = FoldInSettings(
        float(settings.get("shrinkage", FoldInSettings.shrinkage)),
        float(settings.get("dropped", FoldInSettings.dropped)),
    )
    table = fit_fold_in(_seen(teacher), contents.user_embeddings, fold_in).astype(contents.item_embeddings.dtype)
    contents = replace(contents, fold_in_embeddings=table)
    card = replace(
        of_teacher.model,
        name=f"{of_teacher.model.name}-{rival.method}",
        version="",
        method=rival.method,
        dim=rival.items.shape[1],
        num_parameters=rival.users.size + rival.items.size,
        teacher=of_teacher.model.name,
    )
    return publish_version(
        card,
        contents,
        repository,
        data=dict(of_teacher.data),
        quality=quality,
        fold_in=asdict(fold_in),
        index=rival.index,
    )


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
