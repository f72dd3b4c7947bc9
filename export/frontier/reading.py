"""A frontier read back from `frontier.json`, as the figure and the report take it.

Nothing here needs what measured it, so that a report is written where only `lowpass[distill]` is installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill.errors import RunError
from distill.report.material import Frontier, FrontierPoint

FILE = "frontier.json"


def read_frontier(place: Path) -> Frontier:
    """Read what `lowpass frontier` wrote.

    Args:
        place: Its output directory, or the file itself.

    Raises:
        RunError: There is no such file, it is unreadable, or it lacks a field.
    """
    path = place / FILE if place.is_dir() else place
    try:
        return build_frontier(json.loads(path.read_text(encoding="utf-8")))
    except KeyError as error:
        raise RunError(f"{path}: has no field {error}; 'lowpass frontier' writes it") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: unreadable ({error}); 'lowpass frontier' writes it") from error


def build_frontier(document: Mapping[str, Any]) -> Frontier:
    """A document of the shape that `export/frontier/document.py` describes, as what is drawn."""
    return Frontier(
        document["data"]["name"],
        document["data"]["fingerprint"],
        document["teacher"]["dim"],
        tuple(_build_point(row) for row in document["candidates"]),
        document["recommended"],
        document["limits"],
        (*document["reasons"], *document["notes"]),
        tuple(document["commands"]),
    )


def _build_point(row: Mapping[str, Any]) -> FrontierPoint:
    low, high = row["kept_interval"]
    return FrontierPoint(
        name=row["name"],
        method=row["method"],
        precision=row["precision"],
        kept=row["kept"],
        kept_interval=(low, high),
        kept_on_test=row["kept_on_test"],
        bytes_per_item=row["bytes_per_item"],
        bytes_per_user=row["bytes_per_user"],
        p50_us=row["latency_us"]["p50"],
        p99_us=row["latency_us"]["p99"],
        taught_by=row.get("taught_by") or "",
        training_seconds=row["training_seconds"] if row["trained"] else None,
        is_graph=row["index"]["factory"].startswith("HNSW"),
        servable=row["servable"],
        unbeaten=row["pareto"],
        fits=row["fits"],
    )
