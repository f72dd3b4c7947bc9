"""A candidate of a frontier as a bundle: the same vectors, precision and index that were measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.data.interactions import load_interactions
from distill.errors import RunError, SettingError
from distill.run import Run, open_run
from export.build.ann import RECALL_K, build_index, set_search
from export.build.index_choice import describe_index
from export.build.precision import StoredVectors
from export.build.publish import ChosenIndex, ExportOptions, publish_vectors
from export.bundle import ModelCard, Publisher
from export.frontier.candidates import Source, build_sources, open_student
from export.frontier.document import FORMAT
from export.frontier.reading import FILE


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
        name: Name of the candidate; the recommended one when None.

    Raises:
        RunError: There is no frontier, or it is unreadable.
        SettingError: No such candidate, none is recommended, or no bundle can hold it.
    """
    path = frontier / FILE
    if not path.is_file():
        raise RunError(f"{frontier}: no {FILE} there; make it with 'lowpass frontier'")
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


def publish_candidate(choice: Choice, repository: Publisher, model: str, options: ExportOptions | None = None) -> Path:
    """Make a bundle of a candidate.

    Args:
        choice: The candidate.
        repository: Where the model is to be.
        model: Name of the model there.
        options: How it is published; what chooses vectors or an index has no effect, since both are given.

    Returns:
        The bundle's directory.

    Raises:
        RunError: The data or a run is gone, or was trained on other data.
        BundleError: The bundle cannot be written.
    """
    options = options or ExportOptions()
    row, data, teacher = choice.candidate, load_interactions(choice.data), open_run(choice.teacher)
    teacher.require_same_data(data)
    repository.reserve(model, options.version, options.label)
    source = _reopen(row, teacher)
    stored = source.store(row["precision"])
    card = ModelCard(
        name=model,
        version=options.version,
        backbone=source.backbone,
        method=row["name"],
        dim=source.dim,
        num_parameters=stored.users.size + stored.items.size,
        teacher=teacher.path.name,
    )
    return publish_vectors(stored, card, data, repository, options, teacher=teacher, index=_rebuild_index(row, stored))


def _reopen(row: dict[str, Any], teacher: Run) -> Source:
    if row["trained"]:
        return open_student(open_run(Path(row["run"])))
    return next(source for source in build_sources(teacher, [], [row["dim"]]) if source.method == row["method"])


def _rebuild_index(row: dict[str, Any], stored: StoredVectors) -> ChosenIndex:
    """The index that was measured: the same items give the same one."""
    factory, search = row["index"]["factory"], row["index"]["search"]
    items = np.ascontiguousarray(stored.as_stored[1], dtype=np.float32)
    index = stored.index if factory == stored.factory else build_index(factory, items)
    set_search(index, search)
    latency = {"median_us": row["latency_us"]["p50"], "p99_us": row["latency_us"]["p99"]}
    measured = {**row["index"], **latency, "code_bytes": row["code_bytes"]}
    return index, describe_index(measured, RECALL_K, [measured])
