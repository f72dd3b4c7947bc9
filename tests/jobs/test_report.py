"""The page of a run: what is on it, and that it needs nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from jobs.record.folder import JobFolder
from jobs.record.state import GateRow, RunState
from jobs.report import write_report
from tests.kits.chromium import needs_chromium, visit


def page(job: Path) -> Path:
    folder = JobFolder(job / "jobs" / "toy")
    return folder.run_folder(folder.runs()[0]) / "report.html"


def test_the_page_has_steps_gate_quality_and_a_link_to_the_version(finished_job: Path) -> None:
    text = page(finished_job).read_text()
    assert "<h1>toy: published</h1>" in text
    for words in ("Steps", "Gate", "Quality", "Learning", "kept_ndcg", "worse_than_stable"):
        assert words in text
    (link,) = re.findall(r'<a href="([^"]*manifest.json)">', text)
    assert (page(finished_job).parent / link).resolve() == finished_job / "models/toy/1/manifest.json"
    assert "<script" not in text


def test_a_failed_run_has_a_page_that_says_why_and_escapes_it(tmp_path: Path) -> None:
    state = RunState("toy", "r", "job.toml", "2026-01-01T00:00:00+00:00", outcome="failed", error="<b>no</b>")
    state.gate = [GateRow("p99_ms", 30.0, 20.0, passed=False, look="what else ran")]
    state.warnings = ["metrics: away"]
    write_report(tmp_path, state, [])
    text = (tmp_path / "report.html").read_text()
    assert "It failed: &lt;b&gt;no&lt;/b&gt;" in text
    assert "Warning: metrics: away" in text
    assert re.search(r'class="number worse"[^>]*>held</td>', text)


@needs_chromium
def test_a_browser_opens_it_without_a_word_and_asks_for_nothing(finished_job: Path) -> None:
    seen = visit(page(finished_job))
    assert seen.console == []
    assert seen.requests == []
