from __future__ import annotations

import pytest

from export.build.stages import stage


def test_a_long_stage_is_told_with_its_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 164.6])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    work = iter([10.0, 40.0])
    monkeypatch.setattr("time.process_time", lambda: next(work))
    with stage("index"):
        pass
    assert capsys.readouterr() == ("", "index: 65 s, 30 s of a processor\n")


def test_a_short_one_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with stage("index"):
        pass
    assert capsys.readouterr() == ("", "")
