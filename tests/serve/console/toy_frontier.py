"""A small document of a frontier, as 'lowpass frontier' writes it."""

from __future__ import annotations

from typing import Any


def _candidate(name: str, kept: float, bytes_per_item: int, *, pareto: bool, servable: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "kept": kept,
        "kept_interval": [kept - 0.02, kept + 0.02],
        "bytes_per_item": bytes_per_item,
        "latency_us": {"p50": 20.0 + bytes_per_item / 10, "p99": 70.0},
        "index": {"factory": "Flat", "search": {}, "ann_recall": 1.0},
        "taught_by": "teacher" if name.startswith("ce") else None,
        "servable": servable,
        "pareto": pareto,
        "fits": servable and kept >= 0.95,
    }


DOCUMENT: dict[str, Any] = {
    "format": 1,
    "data": {"name": "toy", "users": 60, "items": 400},
    "teacher": {"run": "runs/teacher", "backbone": "bprmf", "dim": 64, "candidate": "teacher-float32"},
    "limits": {"max_bytes_per_item": None, "max_p99_ms": None, "min_kept": 0.95},
    "candidates": [
        _candidate("teacher-float32", 1.0, 256, pareto=False),
        _candidate("ce-d16-int8", 1.03, 16, pareto=True),
        _candidate("svd-d16-int8", 0.8, 16, pareto=False),
        _candidate("ease", 1.2, 2000, pareto=True, servable=False),
    ],
    "pareto": ["ce-d16-int8", "ease"],
    "recommended": "ce-d16-int8",
    "reasons": ["Take `ce-d16-int8`: 16 bytes an item.", "On test it keeps 102 %."],
    "notes": [],
    "commands": ["lowpass export frontier --repository models --model small"],
}
