from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distill.errors import RunError
from distill.report.figures import draw_frontier, encode_png
from export.frontier.reading import build_frontier, read_frontier


def build_document(fingerprint: str) -> dict[str, Any]:
    """What export/frontier/document.py describes, as far as it is read."""
    return {
        "format": 1,
        "data": {"name": "toy", "fingerprint": fingerprint},
        "teacher": {"dim": 64},
        "limits": {"max_bytes_per_item": None, "max_p99_ms": None, "min_kept": 0.95},
        "candidates": [
            build_candidate("teacher-float32", 1.0, 256, method="teacher", trained=False),
            build_candidate(
                "small",
                0.97,
                16,
                taught_by="teacher + ease",
                index={"factory": "HNSW16", "search": {}, "ann_recall": 1.0},
            ),
            build_candidate("ease", 0.5, 4, method="ease", trained=False, servable=False, fits=False),
        ],
        "pareto": ["teacher-float32", "small", "ease"],
        "recommended": "small",
        "reasons": ["Take `small`."],
        "notes": ["A note."],
        "commands": ["lowpass export frontier"],
    }


def build_candidate(name: str, kept: float, bytes_per_item: int, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "method": "freqd", "precision": "float32", "trained": True, "servable": True, "kept": kept,
        "kept_interval": [kept - 0.01, kept + 0.01], "kept_on_test": None, "bytes_per_item": bytes_per_item,
        "bytes_per_user": 64, "index": {"factory": "Flat", "search": {}, "ann_recall": 1.0},
        "latency_us": {"p50": 50.0, "p99": 100.0}, "training_seconds": 3.0, "pareto": True, "fits": True, **more,
    }  # fmt: skip


def write_frontier(path: Path, fingerprint: str) -> Path:
    path.write_text(json.dumps(build_document(fingerprint)), encoding="utf-8")
    return path


@pytest.mark.parametrize("given", [".", "frontier.json"])
def test_a_frontier_reads_back_as_it_was_measured(tmp_path: Path, given: str) -> None:
    write_frontier(tmp_path / "frontier.json", "abc")
    frontier = read_frontier(tmp_path / given)
    assert (frontier.data_name, frontier.data_fingerprint, frontier.teacher_dim) == ("toy", "abc", 64)
    teacher, small, ease = frontier.points
    assert (small.name, small.method, small.kept, small.bytes_per_item) == ("small", "freqd", 0.97, 16)
    assert (small.taught_by, teacher.taught_by) == ("teacher + ease", "")
    assert (small.p50_us, small.p99_us) == (50.0, 100.0)
    assert small.kept_interval == pytest.approx((0.96, 0.98))
    assert (small.is_graph, teacher.is_graph) == (True, False)
    assert (small.training_seconds, teacher.training_seconds) == (3.0, None)
    assert (small.servable, ease.servable, ease.fits) == (True, False, False)
    assert frontier.recommended == "small"
    assert frontier.sentences == ("Take `small`.", "A note.")
    assert frontier.commands == ("lowpass export frontier",)


def test_a_document_is_drawn_as_it_is() -> None:
    assert encode_png(draw_frontier(build_frontier(build_document("0")))).startswith(b"\x89PNG")


@pytest.mark.parametrize("content", ["nonsense", "[]", "{}", json.dumps({"data": {}, "candidates": []})])
def test_a_file_that_is_no_frontier_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "frontier.json"
    path.write_text(content)
    with pytest.raises(RunError, match=r"frontier\.json: .*'lowpass frontier' writes it"):
        read_frontier(tmp_path)
    with pytest.raises(RunError, match="nothing: unreadable"):
        read_frontier(tmp_path / "nothing")
