"""A bundle that passed the gate becomes a version of the repository: by a rename, under the next free number."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from export.bundle import BundleExists, ModelRepository, UnknownModel, open_bundle, open_manifest, write_file
from export.bundle.manifest import MANIFEST_FILE
from export.bundle.writer import flush, open_draft

TRIES = 5
"""Others may take a number before a rename does."""


def find_version(repository: ModelRepository, model: str, bundle_id: str) -> Path | None:
    """The latest version of that content, or None."""
    with suppress(UnknownModel):
        for version in reversed(repository.versions(model)):
            path = repository.resolve(model, version)
            if open_manifest(path).bundle_id == bundle_id:
                return path
    return None


def find_labelled(repository: ModelRepository, model: str, label: str) -> Path | None:
    """The version that a label points to, or None."""
    try:
        version = repository.labels(model).get(label)
    except UnknownModel:
        return None
    return None if version is None else repository.resolve(model, version)


def publish(staged: Path, repository: ModelRepository, model: str) -> Path:
    """Give a bundle a place in a repository, without a label.

    On one file system it is moved, else copied and verified; either way it appears whole, by a rename.

    Args:
        staged: The bundle, of which nobody else knows.
        repository: Where it is to be.
        model: Its name there.

    Returns:
        The version's folder.

    Raises:
        RepositoryError: A name is not allowed.
        BundleExists: Others took every number that was tried.
        BundleError: The copy does not verify.
    """
    for _ in range(TRIES):
        target = repository.reserve(model)
        target.parent.mkdir(parents=True, exist_ok=True)
        _name(staged, model, target.name)
        try:
            if on_one_disk(staged, target.parent):
                staged.rename(target)
            else:
                _copy(staged, target)
        except OSError as error:
            if not target.exists():
                raise
            last = error
            continue
        flush([target.parent])
        return target
    raise BundleExists(f"{target}: others publish there faster than this job; run it again") from last


def on_one_disk(one: Path, other: Path) -> bool:
    """Whether a rename can lead from one folder to the other."""
    return one.stat().st_dev == other.stat().st_dev


def _name(staged: Path, model: str, version: str) -> None:
    """Write name and version into the manifest; they are no part of the content that `bundle_id` names."""
    manifest = open_manifest(staged)
    if (manifest.model.name, manifest.model.version) != (model, version):
        named = replace(manifest, model=replace(manifest.model, name=model, version=version))
        write_file(staged / MANIFEST_FILE, named.to_bytes())


def _copy(staged: Path, target: Path) -> None:
    draft, lock = open_draft(target)
    try:
        shutil.copytree(staged, draft, dirs_exist_ok=True)
        open_bundle(draft, verify=True)
        draft.chmod(0o755)
        flush([*draft.iterdir(), draft])
        draft.rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        os.close(lock)
