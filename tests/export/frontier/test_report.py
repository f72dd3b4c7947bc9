from __future__ import annotations

from typing import Any

import pytest

from export.frontier.choice import Limits, Row, explain, recommend
from export.frontier.document import build_document, render_page, render_summary, render_table
from tests.export.frontier.toy import build_baseline, build_row, build_teacher

ABOUT: dict[str, Any] = {
    "data": {"name": "toy", "path": "data", "fingerprint": "0", "users": 1200, "items": 90},
    "teacher": {"run": "runs/teacher", "backbone": "bprmf", "dim": 64, "candidate": "teacher-float32"},
    "settings": {"ann_recall": 0.99, "seed": 0},
}


def document_of(rows: list[Row], limits: Limits | None = None) -> dict[str, Any]:
    limits = limits or Limits()
    found = recommend(rows, limits)
    reasons = explain(found, rows, limits)
    commands = ["lowpass export out"] if found.chosen else []
    return build_document(
        ABOUT, rows, limits, found, quality="Toy.", reasons=reasons, notes=["A note."], commands=commands
    )


@pytest.fixture
def document() -> dict[str, Any]:
    rows = [
        build_teacher(pareto=False),
        build_row("big", 0.9999, 64, taught_by="teacher"),
        build_row("small", 0.97, 1600, index="HNSW16", search={"efSearch": 64}),
        build_row("beaten", 0.97, 2000, pareto=False),
        build_baseline("ease", 0.5, 4),
    ]
    return document_of(rows)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_is_sorted_by_bytes_and_marked(document: dict[str, Any]) -> None:
    header, _, *lines = render_table(document["candidates"], document).splitlines()
    assert cells(header) == [
        "", "candidate", "bytes/item", "bytes/user", "MB in all", "kept (95 % interval)", "test Recall@20",
        "test NDCG@20", "p50, p99 µs", "taught by", "training s", "build s",
    ]  # fmt: skip
    assert [cells(line)[:3] for line in lines] == [
        ["○", "ease", "4"], ["●", "big", "64"], ["★", "teacher-float32", "256"], ["●", "small", "1,600"],
        ["", "beaten", "2,000"],
    ]  # fmt: skip
    assert cells(lines[1])[3:] == [
        "64", "0.08", "100.0 % (99.0–101.0)", "0.1800 (98.0 %)", "0.0667", "50, 100", "teacher", "3", "0.1",
    ]  # fmt: skip
    assert cells(lines[0])[-2] == "–", "what is not trained has no training time"
    assert len({len(line) for line in (header, *lines)}) == 1, "padded"


def test_the_summary_shows_the_set_the_choice_and_the_teacher(document: dict[str, Any]) -> None:
    text = render_summary(document)
    assert text.startswith("Take `")
    assert "    lowpass export out" in text
    assert "beaten" not in text
    assert all(f"| {name} " in text for name in ("big", "small", "ease", "teacher-float32"))


def test_the_page_has_everything(document: dict[str, Any]) -> None:
    page = render_page(document)
    assert page.startswith("# Which compressed model to serve: toy\n\n1,200 users, 90 items; teacher `runs/teacher`")
    assert "](frontier.png)" in page
    assert "- A note." in page
    assert "## All 5 candidates" in page
    assert "| beaten " in page
    assert page.count("\n\n\n") == 0


def test_without_test_items_and_without_a_choice() -> None:
    rows = [build_teacher()]
    document = document_of(rows, Limits(max_bytes_per_item=1))
    document["candidates"][0].update(test=None, kept_on_test=None)
    page = render_page(document)
    assert "Nothing is within the limits" in page
    assert "Next:" not in page
    assert "| validation Recall@20 |" in " ".join(page.split())
    assert " 0.2000 |" in page
