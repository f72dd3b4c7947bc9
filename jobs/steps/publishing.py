"""What of a job is published already: found by its content, and by the label."""

from __future__ import annotations

from contextlib import suppress

from export.bundle import BundleError, Repository, StoreError, UnknownModel


def find_version(repository: Repository, model: str, bundle_id: str) -> str | None:
    """The latest version of that content, or None; one that does not open has none."""
    with suppress(UnknownModel):
        for version in reversed(repository.versions(model)):
            try:
                found = repository.manifest(model, version).bundle_id
            except StoreError:
                raise
            except BundleError:
                continue
            if found == bundle_id:
                return version
    return None


def find_labelled(repository: Repository, model: str, label: str) -> str | None:
    """The version that a label points to, or None."""
    try:
        return repository.labels(model).get(label)
    except UnknownModel:
        return None
