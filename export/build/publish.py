"""Publishing: vectors and what is said of them in, a verified version of a model in a repository out.

`publish_version` writes every bundle there is; a run (`export_run`), a candidate of a frontier (`export/frontier/
publishing.py`) and a rival of a teacher (`export/build/rivals.py`) differ in where their vectors and index come from.
A version is verified before it has a name, so an export that fails leaves nothing behind.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import scipy.sparse as sp

from distill.data.interactions import Interactions
from distill.run import Run, open_run
from export.build.ann import write_index
from export.build.answer_table import add_answers
from export.build.fold_in import fit_fold_in
from export.build.fold_in_choice import choose_recent_step, choose_settings
from export.build.index_choice import BUDGET_SECONDS, choose_index
from export.build.onnx_graphs import write_fold_in_graph, write_recommend_graph
from export.build.precision import StoredVectors, require_finite, store
from export.build.quality import Measuring
from export.build.stages import stage
from export.build.verify import verify_bundle
from export.bundle import SCHEMA_VERSION, BundleContents, ExportError, IndexCard, Manifest, ModelCard, Publisher
from export.bundle.manifest import INDEX_FILE

Dtype = Literal["float32", "float16"]
Seen = Literal["train+validation", "all"]
ChosenIndex = tuple[faiss.Index, IndexCard]


@dataclass(frozen=True)
class ExportOptions:
    """How a run is exported.

    Attributes:
        version: Version in the repository; the next free one when empty.
        label: Label to point to the new version, or None.
        ann_recall: What the index must find of the exact top 20, from 0 to 1.
        max_index_bytes_per_item: Largest index file, bytes an item; None for any.
        budget: Processor seconds that choosing an index may take.
        answer_table: Length of the table of ready answers for every user; 0 for none.
        dtype: Element type of the stored embeddings.
        seen: What counts as already had. "train+validation" keeps the test items answerable, so that quality can
            be measured on what is served; "all" is for production.
        seed: Of the samples of users who ask.
        eval_users: On how many users quality is measured at most, as of `draw_users`.
    """

    version: str = ""
    label: str | None = None
    ann_recall: float = 0.99
    max_index_bytes_per_item: float | None = None
    budget: float = BUDGET_SECONDS
    answer_table: int = 0
    dtype: Dtype = "float32"
    seen: Seen = "train+validation"
    seed: int = 0
    eval_users: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.ann_recall <= 1.0:
            raise ExportError(f"ann_recall {self.ann_recall}: must be from 0 to 1")
        if not self.budget >= 0:
            raise ExportError(f"budget {self.budget}: must be seconds, 0 or more")
        if self.answer_table < 0:
            raise ExportError(f"answer_table {self.answer_table}: must be a number of items, or 0 for none")


def export_run(
    run: Run,
    data: Interactions,
    repository: Publisher,
    model: str,
    options: ExportOptions | None = None,
    *,
    teacher: Run | None = None,
) -> Path:
    """Export a run as a bundle.

    Args:
        run: A finished run.
        data: The data it was trained on.
        repository: Where the model is to be.
        model: Name of the model there.
        options: How it is exported; the defaults when None.
        teacher: The run it was distilled from; the one the run names, where it still is, when None.

    Returns:
        The bundle's directory.

    Raises:
        RunError: The run, or the teacher, was trained on other data.
        ExportError: The embeddings cannot be stored.
        BundleError: The bundle cannot be written.
    """
    options = options or ExportOptions()
    repository.reserve(model, options.version, options.label)
    run.require_same_data(data)
    teacher = teacher or _find_teacher(run)
    card = ModelCard(
        name=model,
        version=options.version,
        backbone=str(run.config.get("backbone", "unknown")),
        method=str(run.config.get("method", "unknown")),
        dim=run.dim,
        num_parameters=run.user_embeddings.size + run.item_embeddings.size,
        teacher=teacher.path.name if teacher else None,
    )
    try:
        vectors = store(run.user_embeddings, run.item_embeddings, options.dtype)
    except ExportError as error:
        raise ExportError(f"{run.path}: {error}") from error
    reported = {"run_test": run.metrics["test"]} if "test" in run.metrics else {}
    return publish_vectors(vectors, card, data, repository, options, teacher=teacher, reported=reported, run=run.path)


def _find_teacher(run: Run) -> Run | None:
    named = run.config.get("teacher")
    if not isinstance(named, str) or not Path(named).is_dir():
        return None
    return open_run(Path(named))


def publish_vectors(
    vectors: StoredVectors,
    card: ModelCard,
    data: Interactions,
    repository: Publisher,
    options: ExportOptions,
    *,
    teacher: Run | None = None,
    index: ChosenIndex | None = None,
    reported: Mapping[str, Any] | None = None,
    run: Path | None = None,
) -> Path:
    """Publish vectors that were made of a data set: choose what is not given, measure, and write.

    Args:
        vectors: As they are to be stored.
        card: What they are; an empty version means the next free one.
        data: What they were made of.
        repository: Where the model is to be.
        options: How it is published.
        teacher: The run it is compared with, or None.
        index: An index of the items and its card; chosen by measurement when None.
        reported: What else the manifest is to say of the quality.
        run: The run directory whose vectors they are, where what is measured is kept, or None.

    Returns:
        The bundle's directory.

    Raises:
        RunError: The teacher was trained on other data.
        ExportError: No index keeps within the bound, or a vector does not fit its element type.
        BundleError: The bundle cannot be written.
    """
    had = had_items(data, options.seen)
    contents = build_contents(data, vectors, had)
    users, items = contents.user_embeddings, contents.item_embeddings
    rng = np.random.default_rng(options.seed)
    with stage("fold-in settings"):
        settings, measured = choose_settings(items, users, data.train, data.validation, rng)
    with stage("fold-in table"), np.errstate(over="ignore"):
        table = fit_fold_in(data.train, users, settings).astype(items.dtype, copy=False)
    require_finite("fold-in vectors", table, items.dtype.name)
    contents = replace(contents, fold_in_embeddings=table)
    with stage("step of recent items"):
        step = choose_recent_step(items, users, table, data.train, data.validation, rng)
    fold_in = {**asdict(settings), **measured, **step}
    if index is None:
        bounds: dict[str, Any] = {"max_bytes_per_item": options.max_index_bytes_per_item, "budget": options.budget}
        with stage("index"):
            index = choose_index(items, users, had, options.ann_recall, rng, **bounds)
    if teacher is not None:
        teacher.require_same_data(data)
    with stage("quality"):
        quality = Measuring(data, options.eval_users).measure(contents, run, teacher) | dict(reported or {})
    if options.answer_table:
        with stage("answer table"):
            contents = add_answers(contents, had, options.answer_table)
    about = {"name": data.name, "fingerprint": data.fingerprint}
    return publish_version(
        card, contents, repository, data=about, quality=quality, fold_in=fold_in, index=index, label=options.label
    )


def publish_version(
    card: ModelCard,
    contents: BundleContents,
    repository: Publisher,
    *,
    data: dict[str, str],
    quality: dict[str, Any],
    fold_in: dict[str, Any],
    index: ChosenIndex,
    label: str | None = None,
) -> Path:
    """Write a version of a model, verified, or nothing.

    Args:
        card: What it is; an empty version means the next free one.
        contents: Ids and arrays, the fold-in table among them.
        repository: Where the model is to be.
        data: {"name", "fingerprint"} of the data set.
        quality: Of the manifest.
        fold_in: Of the manifest.
        index: Of the stored items, and its card.
        label: Label to point to the new version, or None.

    Returns:
        The bundle's directory.

    Raises:
        BundleError: The bundle does not verify, or cannot be written.
    """
    chosen, index_card = index

    def write_graphs(draft: Path) -> None:
        write_recommend_graph(draft)
        if not (draft / INDEX_FILE).exists():  # a shard of the users has those of the first one
            write_index(chosen, draft / INDEX_FILE)
            write_fold_in_graph(draft)

    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        bundle_id="",
        producer=f"lowpass {importlib.metadata.version('lowpass')}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        model=card,
        counts={},
        quality=quality,
        data=data,
        index=index_card,
        fold_in=fold_in,
        files={},
    )
    with stage("writing and verifying"):
        return repository.publish(manifest, contents, write_graphs, verify_bundle, label)


def had_items(data: Interactions, seen: Seen) -> sp.csr_matrix:
    """What every user already has, shape (U, I), indices sorted."""
    had: sp.csr_matrix = (data.train + data.validation).tocsr()
    if seen == "all":
        had = (had + data.test).tocsr()
    had.sort_indices()
    return had


def build_contents(data: Interactions, vectors: StoredVectors, had: sp.csr_matrix) -> BundleContents:
    """Put together the arrays of a bundle.

    Args:
        data: Ids, interactions and item metadata.
        vectors: Embeddings.
        had: What users already have, shape (U, I), indices sorted.
    """
    users, items = vectors.as_stored
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
