"""Keys: what a step is made of, by content, so that it is made again when that changes and only then."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEY_FORMAT = 1
"""Rises when what a step makes of the same inputs and settings changes."""


def digest(step: str, made_of: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a step's inputs and settings.

    Args:
        step: Its name.
        made_of: Name → JSON-ready value, or a path.
    """
    text = json.dumps({"format": KEY_FORMAT, "step": step, **made_of}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_source(path: Path) -> str:
    """SHA-256 (hex) of a file, or of the names and contents of all files in a folder, hidden ones left out."""
    files = [path]
    if path.is_dir():
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.relative_to(path) if path.is_dir() else file.name}\0{_hash_file(file)}\n".encode())
    return whole.hexdigest()


def _hash_file(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
