"""Where a job publishes: one place opens every kind of repository that a spec may name."""

from __future__ import annotations

from pathlib import Path

from export.bundle import ModelRepository
from jobs.errors import SpecError


def open_repository(place: str) -> ModelRepository:
    """Open the repository of a spec.

    Args:
        place: A folder's path.

    Raises:
        SpecError: It is something else.
    """
    if "://" in place:
        scheme = place.partition("://")[0]
        raise SpecError(f"'{scheme}' is no kind of repository here; give a folder")
    if Path(place).exists() and not Path(place).is_dir():
        raise SpecError(f"{place} is a file; give a folder")
    return ModelRepository(Path(place))
