"""The document of a frontier, `frontier.json`, as the page shows it: read, checked, never measured here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from serve.answers.errors import StartupError

FILE = "frontier.json"
MOST_BYTES = 16 << 20
NEEDED = ("name", "kept", "bytes_per_item", "pareto", "fits", "latency_us", "index")


class UnusableFrontier(StartupError):
    """It cannot be read, or is no document of a frontier."""


def read_frontier(path: Path) -> dict[str, Any]:
    """A document, whole.

    Args:
        path: The file, or the directory that 'lowpass frontier --out' wrote.

    Raises:
        UnusableFrontier: It cannot be read, or is something else.
    """
    file = path / FILE if path.is_dir() else path
    try:
        with file.open("rb") as stream:
            text = stream.read(MOST_BYTES + 1)
        document = json.loads(text) if len(text) <= MOST_BYTES else None
    except OSError as error:
        raise UnusableFrontier(f"--frontier {file}: cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise UnusableFrontier(f"--frontier {file}: is no JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != 1:
        raise UnusableFrontier(f"--frontier {file}: is no frontier of format 1; 'lowpass frontier' writes one")
    candidates = document.get("candidates")
    if not isinstance(candidates, list) or not candidates or not all(_is_candidate(each) for each in candidates):
        raise UnusableFrontier(f"--frontier {file}: candidates: each must have {', '.join(NEEDED)}")
    return document


def _is_candidate(found: Any) -> bool:
    return isinstance(found, dict) and all(name in found for name in NEEDED)
