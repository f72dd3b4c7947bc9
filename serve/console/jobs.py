"""The directory of the batch jobs as the page shows it; it is read, never written.

    JOBS/<job>/runs/<UTC time>/state.json

What cannot be read is shown as that, with the reason: one torn file must not hide the other runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MOST_JOBS, MOST_RUNS = 50, 20
MOST_BYTES = 1 << 20
"""Of a state file; a larger one is none."""
STEP = ("name", "outcome", "started", "seconds", "reused", "says")
CHECK = ("check", "measured", "bound", "passed", "look")


def read_jobs(directory: Path, runs: int = MOST_RUNS) -> list[dict[str, Any]]:
    """Every job by name, its runs from the latest on.

    Args:
        directory: Of the jobs; one that is not there yet has none.
        runs: Most of a job.
    """
    return [
        {"job": each.name, "runs": [_read_run(run) for run in _latest(each / "runs", runs)]}
        for each in sorted(_folders(directory))[:MOST_JOBS]
        if (each / "runs").is_dir()
    ]


def _folders(directory: Path) -> list[Path]:
    try:
        return [each for each in directory.iterdir() if each.is_dir() and not each.is_symlink()]
    except OSError:
        return []


def _latest(directory: Path, most: int) -> list[Path]:
    return sorted(_folders(directory), key=lambda each: each.name, reverse=True)[:most]


def _read_run(run: Path) -> dict[str, Any]:
    path = run / "state.json"
    try:
        with path.open("rb") as stream:
            text = stream.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        return {"run": run.name, **_shape(json.loads(text))}
    except (OSError, ValueError, RecursionError) as error:
        return {
            "run": run.name,
            "outcome": "unreadable",
            "says": f"state.json: {error}",
            "warnings": [],
            "steps": [],
            "gate": [],
        }


def _shape(state: Any) -> dict[str, Any]:
    """The fields that the page shows.

    Raises:
        ValueError: It is no state of a run.
    """
    if not isinstance(state, dict) or state.get("format") != 1:
        raise ValueError("is no state of format 1")
    published = state.get("published")
    return {
        "started": _plain(state.get("started")),
        "ended": _plain(state.get("ended")),
        "outcome": str(state.get("outcome", "")),
        "says": _plain(state.get("error")),
        "warnings": _list(state, "warnings", str),
        "steps": [_taken(step, STEP) for step in _list(state, "steps", dict)],
        "gate": [_taken(check, CHECK) for check in _list(state, "gate", dict)],
        "published": _taken(published, ("model", "version")) if isinstance(published, dict) else None,
    }


def _list(state: Mapping[str, Any], name: str, kind: type) -> list[Any]:
    found = state.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, kind) for each in found):
        raise ValueError(f"{name} is no list of {kind.__name__}")
    return found


def _taken(content: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: _plain(content.get(name)) for name in names}


def _plain(value: Any) -> Any:
    """A word, a number, or None; anything else as JSON, so that the page never has to guess."""
    return value if value is None or isinstance(value, str | int | float | bool) else json.dumps(value)
