from __future__ import annotations

from pathlib import Path

from jobs.steps.results import Result, Results


def test_only_what_was_finished_under_the_whole_key_is_found(tmp_path: Path) -> None:
    results = Results(tmp_path)
    result = Result("teacher", "a" * 64, "a" * 64, "content", "d 16", 1.5)
    results.place("teacher", result.key).mkdir()
    assert results.find("teacher", result.key) is None
    results.finish(result)
    assert results.find("teacher", result.key) == result
    assert results.find("teacher", "a" * 16 + "b" * 48) is None
