"""The study of going on from yesterday: it trains each thing once, and prints what the runs hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import lowpass
import results.continued
from distill.training.job import Job, build_job
from results.continued import continued
from tests.results.test_days import source

__all__ = ["source"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """Make every training one of four epochs, without co-teachers, and note it."""
    made = []

    def build(method: str, given: dict[str, Any]) -> Job:
        options = {"epochs": 4, "eval_every": 2, "batch_size": 64, "patience": 4}
        made.append(build_job(method, {**given, **options, **({} if method == "scratch" else {"co_teachers": "none"})}))
        return made[-1]

    monkeypatch.setattr(results.continued, "build_job", build)
    return made


def test_days_are_trained_once_and_laid_side_by_side(
    source: Path, tmp_path: Path, quick: list[Job], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", "ml-100k", "--sources", str(source.parent), "--work", str(tmp_path), "--days", "2"]
    assert lowpass.main(words, command=continued) == 0
    first = capsys.readouterr().out
    assert len(quick) == 2 + 2 * 4
    bases = [None if job.continue_from is None else job.continue_from.name for job in quick]
    assert bases == [None, None, None, None, "teacher-0-anew-0", "student-0-anew-0",
                     None, None, "teacher-1-continued-0", "student-1-continued-0"]  # fmt: skip
    assert "## ml-100k, its own times" in first
    assert "| mean" in first
    for kind in ("continued", "from nothing", "items in another order", "random"):
        assert f"| {kind}" in first
    page = tmp_path / "page.md"
    assert lowpass.main([*words, "--render", "--out", str(page)], command=continued) == 0
    assert capsys.readouterr().out == first
    assert page.read_text().startswith("# Going on from yesterday")
    assert first.strip() in page.read_text()
    assert lowpass.main(words, command=continued) == 0
    assert len(quick) == 2 + 2 * 4
