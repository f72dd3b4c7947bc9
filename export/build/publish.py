"""The export job: a finished run and its data in, a bundle in a model repository out."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from distill.data.interactions import Interactions
from distill.run import Run, open_run
from export.build.ann import write_index
from export.build.answer_table import add_answers
from export.build.fold_in import FoldInWeights, build_whitening, choose_weights
from export.build.index_choice import choose_index
from export.build.onnx_graphs import write_fold_in_graph, write_recommend_graph
from export.build.quality import convention, measure_quality
from export.build.verify import verify_bundle
from export.bundle import BundleContents, ExportError, IndexCard, Manifest, ModelCard
from export.bundle.layout import INDEX_FILE
from export.bundle.manifest import SCHEMA_VERSION
from export.bundle.repository import ModelRepository

Dtype = Literal["float32", "float16"]
Seen = Literal["train+validation", "all"]


@dataclass(frozen=True)
class ExportOptions:
    """How a run is exported.

    Attributes:
        version: Version in the repository; the next free one when empty.
        label: Label to point to the new version once it verifies, or None.
        ann_recall: What the index must find of the exact top 20, from 0 to 1.
        max_index_bytes_per_item: Largest index file, bytes an item; None for any.
        answer_table: Length of the table of ready answers for every user; 0 for none.
        dtype: Element type of the stored embeddings.
        seen: What counts as already had. "train+validation" keeps the test items answerable, so that quality can
            be measured on what is served; "all" is for production.
        seed: Of the samples of users.
    """

    version: str = ""
    label: str | None = None
    ann_recall: float = 0.99
    max_index_bytes_per_item: float | None = None
    answer_table: int = 0
    dtype: Dtype = "float32"
    seen: Seen = "train+validation"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0.0 <= self.ann_recall <= 1.0:
            raise ExportError(f"ann_recall {self.ann_recall}: must be from 0 to 1")
        if self.answer_table < 0:
            raise ExportError(f"answer_table {self.answer_table}: must be a number of items, or 0 for none")


def export_run(
    run: Run,
    data: Interactions,
    repository: ModelRepository,
    model: str,
    options: ExportOptions | None = None,
    *,
    teacher: Run | None = None,
) -> Path:
    """Export a run as a bundle.

    Args:
        run: The finished run.
        data: The data it was trained on.
        repository: Where to.
        model: Name of the model there.
        options: How; the defaults when None.
        teacher: The run it was distilled from; the one the run names, where it still is, when None.

    Returns:
        The bundle's directory.

    Raises:
        RunError: The run, or the teacher, was trained on other data.
        ExportError: The embeddings cannot be stored.
        BundleError: The bundle cannot be written.
    """
    options = options or ExportOptions()
    repository.reserve(model, options.version)
    run.require_same_data(data)
    teacher = teacher or _find_teacher(run)
    users, items = (_stored(run, name, options.dtype) for name in ("user_embeddings", "item_embeddings"))
    rng = np.random.default_rng(options.seed)
    weights, fold_in_card = choose_weights(items, users, data.train, data.validation, rng)
    had = had_items(data, options.seen)
    index, index_card = choose_index(
        items, users, had, options.ann_recall, rng, max_bytes_per_item=options.max_index_bytes_per_item
    )
    manifest = build_manifest(
        _model_card(run, model, options.version, teacher),
        _measure(run, users, items, data, teacher),
        {"name": data.name, "fingerprint": data.fingerprint},
        index_card,
        describe_fold_in(weights, items, fold_in_card),
    )
    contents = build_contents(data, users, items, options.seen)
    if options.answer_table:
        contents = add_answers(contents, had, options.answer_table)
    path = repository.publish(manifest, contents, write_graphs(index, build_whitening(items, weights)))
    if options.label is not None:
        verify_bundle(path)
        repository.set_label(model, options.label, path.name)
    return path


def _model_card(run: Run, model: str, version: str, teacher: Run | None) -> ModelCard:
    return ModelCard(
        name=model,
        version=version,
        backbone=str(run.config.get("backbone", "unknown")),
        method=str(run.config.get("method", "unknown")),
        dim=run.dim,
        num_parameters=run.user_embeddings.size + run.item_embeddings.size,
        teacher=teacher.path.name if teacher else None,
    )


def _find_teacher(run: Run) -> Run | None:
    named = run.config.get("teacher")
    if not isinstance(named, str) or not Path(named).is_dir():
        return None
    return open_run(Path(named))


def _stored(run: Run, name: str, dtype: Dtype) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):
        stored: npt.NDArray[Any] = getattr(run, name).astype(dtype)
    if not np.isfinite(stored).all():
        raise ExportError(f"{run.path}: {name} holds values that are not finite in {dtype}; train again or use float32")
    return stored


def _measure(
    run: Run,
    users: npt.NDArray[Any],
    items: npt.NDArray[Any],
    data: Interactions,
    teacher: Run | None,
) -> dict[str, Any]:
    """Measure what is stored, not what was trained: float16 and the seen items are part of what is served."""
    known = (data.train + data.validation).tocsr()
    quality: dict[str, Any] = dict(measure_quality(users, items, known, data.test))
    if teacher is not None:
        teacher.require_same_data(data)
        reference = measure_quality(teacher.user_embeddings, teacher.item_embeddings, known, data.test)
        quality.update(compare_with_teacher(quality, reference))
    quality["convention"] = convention("train+validation")
    if "test" in run.metrics:
        quality["run_test"] = run.metrics["test"]
    return quality


def compare_with_teacher(quality: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
    """The teacher's numbers and the share of its recall that is kept, as the manifest names them.

    Args:
        quality: {"recall@20", "ndcg@20"} of the model; may be empty.
        reference: The same of its teacher.
    """
    if not quality.get("recall@20") or not reference.get("recall@20"):
        return {}
    return {
        "teacher_recall@20": float(reference["recall@20"]),
        "teacher_ndcg@20": float(reference["ndcg@20"]),
        "kept_recall": float(quality["recall@20"]) / float(reference["recall@20"]),
    }


def had_items(data: Interactions, seen: Seen) -> sp.csr_matrix:
    """What every user already has, shape (U, I), indices sorted."""
    had: sp.csr_matrix = (data.train + data.validation).tocsr()
    if seen == "all":
        had = (had + data.test).tocsr()
    had.sort_indices()
    return had


def build_contents(data: Interactions, users: npt.NDArray[Any], items: npt.NDArray[Any], seen: Seen) -> BundleContents:
    """Put together the arrays of a bundle.

    Args:
        data: Ids, interactions and item metadata.
        users: User embeddings, shape (U, d).
        items: Item embeddings, shape (I, d).
        seen: What counts as already had.
    """
    had = had_items(data, seen)
    has_test = data.test.nnz > 0
    return BundleContents(
        user_ids=data.user_ids.tolist(),
        item_ids=data.item_ids.tolist(),
        user_embeddings=users,
        item_embeddings=items,
        seen_indptr=had.indptr,
        seen_indices=had.indices,
        popularity=np.argsort(-data.item_popularity, kind="stable"),
        item_titles=None if data.item_titles is None else [title or "" for title in data.item_titles],
        item_categories=data.item_categories,
        heldout_indptr=data.test.indptr if has_test else None,
        heldout_indices=data.test.indices if has_test else None,
    )


def build_manifest(
    model: ModelCard,
    quality: dict[str, Any],
    data: dict[str, str],
    index: IndexCard,
    fold_in: dict[str, Any],
) -> Manifest:
    """Fill in what every bundle says the same way; counts, files and id come when it is written."""
    return Manifest(
        schema_version=SCHEMA_VERSION,
        bundle_id="",
        producer=f"lowpass {importlib.metadata.version('lowpass')}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model,
        counts={},
        quality=quality,
        data=data,
        index=index,
        fold_in=fold_in,
        files={},
    )


def describe_fold_in(weights: FoldInWeights, items: npt.NDArray[Any], measured: Mapping[str, Any]) -> dict[str, Any]:
    """The `fold_in` card: both weights, and how well they did where that was measured."""
    return {
        "ridge": weights.ridge(items),
        "relative_ridge": weights.relative_ridge,
        "gram_weight": weights.gram_weight,
        **measured,
    }


def write_graphs(index: faiss.Index, whitening: npt.NDArray[np.float64]) -> Callable[[Path], None]:
    """The last step of `write_bundle`: index and graphs beside the arrays they map."""

    def write(draft: Path) -> None:
        write_index(index, draft / INDEX_FILE)
        write_recommend_graph(draft)
        write_fold_in_graph(draft, whitening)

    return write
