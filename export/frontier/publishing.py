"""A candidate of a frontier as a bundle: the same vectors, precision and index that were measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from distill.data.interactions import Interactions, load_interactions
from distill.errors import RunError, SettingError
from distill.run import Run, open_run
from export.build.ann import set_search
from export.build.fold_in import build_whitening, choose_weights
from export.build.precision import StoredVectors, build_graph
from export.build.publish import (
    Seen,
    build_contents,
    build_manifest,
    compare_with_teacher,
    describe_fold_in,
    write_graphs,
)
from export.build.quality import convention, measure_quality
from export.build.verify import verify_bundle
from export.bundle import IndexCard, ModelCard
from export.bundle.repository import ModelRepository
from export.frontier.candidates import Source, build_sources, open_student, store
from export.frontier.document import FORMAT
from export.frontier.job import DOCUMENT_FILE
from export.frontier.measuring import CUTOFF


@dataclass(frozen=True)
class Choice:
    """A candidate as `frontier.json` describes it, and where it came from."""

    candidate: dict[str, Any]
    data: Path
    teacher: Path


def read_choice(frontier: Path, name: str | None) -> Choice:
    """Read a candidate of a frontier.

    Args:
        frontier: Output directory of `lowpass frontier`.
        name: The candidate's; the recommended one when None.

    Raises:
        RunError: There is no frontier, or it is unreadable.
        SettingError: No such candidate, none is recommended, or no bundle can hold it.
    """
    path = frontier / DOCUMENT_FILE
    if not path.is_file():
        raise RunError(f"{frontier}: no {DOCUMENT_FILE} there; make it with 'lowpass frontier'")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["format"] != FORMAT:
            raise ValueError(f"format {document['format']}, this version reads {FORMAT}")
        candidates = {row["name"]: row for row in document["candidates"]}
        wanted = document["recommended"] if name is None else name
        places = Path(document["data"]["path"]), Path(document["teacher"]["run"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: unreadable ({error}); make it again with 'lowpass frontier'") from error
    if wanted is None:
        raise SettingError(f"{path}: recommends nothing; name a candidate, or relax a limit of 'lowpass frontier'")
    if wanted not in candidates:
        raise SettingError(f"{path}: no candidate '{wanted}'; it has {', '.join(candidates)}")
    if not candidates[wanted]["servable"]:
        raise SettingError(f"{path}: '{wanted}' has no embeddings, so no bundle can hold it; name another candidate")
    return Choice(candidates[wanted], *places)


def publish_candidate(
    choice: Choice, repository: ModelRepository, model: str, *, label: str | None = None, seen: Seen, seed: int = 0
) -> Path:
    """Make a bundle of a candidate.

    Args:
        choice: Which.
        repository: Where to.
        model: Name of the model there.
        label: Label to point to the new version once it verifies, or None.
        seen: What users already have.
        seed: Of the sample of users from whom folding in is tuned.

    Returns:
        The bundle's directory.

    Raises:
        RunError: The data or a run is gone, or was trained on other data.
        BundleError: The bundle cannot be written.
    """
    row, data, teacher = choice.candidate, load_interactions(choice.data), open_run(choice.teacher)
    teacher.require_same_data(data)
    repository.reserve(model, "")
    source = _reopen(row, teacher)
    stored = store(source, row["precision"])
    weights, measured = choose_weights(
        stored.items, stored.users, data.train, data.validation, np.random.default_rng(seed)
    )
    manifest = build_manifest(
        _model_card(row, model, source, stored, teacher),
        _measure(stored, data, teacher),
        {"name": data.name, "fingerprint": data.fingerprint},
        _index_card(row),
        describe_fold_in(weights, stored.items, measured),
    )
    users, items = stored.users.astype(stored.user_dtype), stored.items.astype(stored.item_dtype)
    index = stored.index if row["index"]["factory"] == stored.factory else _build_graph(row, source.items)
    graphs = write_graphs(index, build_whitening(items, weights))
    path = repository.publish(manifest, build_contents(data, users, items, seen), graphs)
    if label is not None:
        verify_bundle(path)
        repository.set_label(model, label, path.name)
    return path


def _reopen(row: dict[str, Any], teacher: Run) -> Source:
    if row["trained"]:
        return open_student(open_run(Path(row["run"])))
    return next(source for source in build_sources(teacher, [], [row["dim"]]) if source.method == row["method"])


def _build_graph(row: dict[str, Any], items: Any) -> faiss.Index:
    links = int(row["index"]["factory"].removeprefix("HNSW").split("_")[0])
    index, _ = build_graph(items, row["precision"], links)
    set_search(index, row["index"]["search"])
    return index


def _model_card(row: dict[str, Any], model: str, source: Source, stored: StoredVectors, teacher: Run) -> ModelCard:
    return ModelCard(
        name=model,
        version="",
        backbone=source.backbone,
        method=row["name"],
        dim=source.dim,
        num_parameters=stored.users.size + stored.items.size,
        teacher=teacher.path.name,
    )


def _index_card(row: dict[str, Any]) -> IndexCard:
    index = row["index"]
    measured = {**index, "median_us": row["latency_us"]["p50"]}
    code = float(row["code_bytes"])
    return IndexCard(index["factory"], index["search"], index["ann_recall"], CUTOFF, code, [measured])


def _measure(stored: StoredVectors, data: Interactions, teacher: Run) -> dict[str, Any]:
    known = (data.train + data.validation).tocsr()
    quality: dict[str, Any] = dict(measure_quality(stored.users, stored.items, known, data.test))
    reference = measure_quality(teacher.user_embeddings, teacher.item_embeddings, known, data.test)
    quality.update(compare_with_teacher(quality, reference))
    return {**quality, "convention": convention("train+validation")}
