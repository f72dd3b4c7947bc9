"""Words of commands that several tests say, and what they read from the answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

QUICK = ("--epochs", "4", "--eval-every", "2", "--patience", "4", "--batch-size", "256", "--lr", "0.01")


def distill_words(road: Path, out: Path, *more: str) -> list[str]:
    """With FreqD, where `more` says nothing else."""
    teacher = str(road / "teacher")
    words = ["distill", str(road / "data"), "--teacher", teacher, "--out", str(out), "--dim", "4", *QUICK]
    return [*words, *(() if "--method" in more else ("--method", "freqd")), *more]


def read_json(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def read_error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lowpass: error: ")
    assert captured.err.count("\n") == 1
    return captured.err
