"""Who is compared: teacher, student, and the teacher made small without distillation."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from export.bundle import Manifest, UnknownModel, open_manifest
from export.bundle.repository import ModelRepository
from serve.bench.children import run_lowpass
from serve.bench.errors import GainsError

BYTES_PER_NUMBER = 4


class Role(StrEnum):
    """What a model is in the comparison."""

    TEACHER = "teacher"
    STUDENT = "student"
    SVD = "SVD of the teacher"
    PQ = "PQ of the teacher"


@dataclass(frozen=True)
class Contestant:
    """One model of the comparison.

    Args:
        role: What it is.
        name: In the repository.
        path: Its bundle.
        manifest: What the bundle says.
    """

    role: Role
    name: str
    path: Path
    manifest: Manifest


def find_contestants(
    repository: ModelRepository, teacher: str, student: str, *, rivals: bool, answer_tables: bool = False
) -> tuple[list[Contestant], list[str]]:
    """Open the manifests of all that are compared; rivals that are missing or out of date are built.

    Args:
        repository: Holds the models; their default versions are taken.
        teacher: Model name.
        student: Model name.
        rivals: Whether to compare with the teacher's SVD and PQ as well.
        answer_tables: Whether to compare bundles with an answer table, whose speed says nothing of the model.

    Returns:
        The contestants, teacher first and student second, and notes for the reader.

    Raises:
        GainsError: The models are of different data, one has an answer table, or the rivals could not be built.
        RepositoryError: A model is not there.
        BundleError: A manifest is unreadable.
    """
    first, second = _open(repository, Role.TEACHER, teacher), _open(repository, Role.STUDENT, student)
    if first.manifest.data["fingerprint"] != second.manifest.data["fingerprint"]:
        raise GainsError(
            f"{second.path}: data.fingerprint is not that of {first.path}; export both models from the same data"
        )
    contestants, notes = [first, second], []
    tables = {model.name: model.manifest.answer_table for model in contestants if model.manifest.answer_table}
    if tables and not answer_tables:
        raise GainsError(
            f"{', '.join(tables)}: answers from a table made at export, which says nothing of the model; export without"
            " --answer-table, or give --answer-tables to compare it so"
        )
    if tables:
        notes.append(f"Answered from tables made at export, without a search: {', '.join(tables)}.")
    if rivals and second.manifest.model.dim < first.manifest.model.dim:
        contestants += _find_rivals(repository, first, second.manifest.model.dim)
    elif rivals:
        notes.append(
            f"No rivals: {student} has d = {second.manifest.model.dim}, not less than the teacher's"
            f" {first.manifest.model.dim}, so there is nothing to cut the teacher down to."
        )
    return contestants, notes


def _open(repository: ModelRepository, role: Role, name: str) -> Contestant:
    path = repository.resolve(name)
    return Contestant(role, name, path, open_manifest(path))


def _find_rivals(repository: ModelRepository, teacher: Contestant, dim: int) -> list[Contestant]:
    names = {Role.SVD: f"{teacher.name}-svd{dim}", Role.PQ: f"{teacher.name}-pq{BYTES_PER_NUMBER * dim}"}
    try:
        found = [_open(repository, role, name) for role, name in names.items()]
        if all(_is_of(rival.manifest, teacher.manifest) for rival in found):
            return found
    except UnknownModel:
        pass
    run_lowpass("export", "--rivals", str(dim), "--teacher", teacher.name, "--repository", str(repository.root))
    return [_open(repository, role, name) for role, name in names.items()]


def _is_of(rival: Manifest, teacher: Manifest) -> bool:
    """Whether a rival was made from this very teacher, as far as its manifest tells."""
    return (
        rival.data["fingerprint"] == teacher.data["fingerprint"]
        and rival.quality.get("teacher_recall@20") == teacher.quality.get("recall@20")
        and rival.created >= teacher.created
    )
