from __future__ import annotations

import pytest

import lowpass
from tests.distill.commands.words import read_json


def test_methods_are_listed_with_their_settings(capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(["methods", "--json"]) == 0
    found = read_json(capsys)["methods"]
    assert found["ce"]["settings"]["num_top"] == 100
    assert found["ce"]["training"]["learning_rate"] == 0.005
    assert {name for name, method in found.items() if method["learns_lists"]} == {"ce", "rcekd"}
    assert lowpass.main(["methods"]) == 0
    assert "freqd      FreqD: feature distillation through a low-pass" in capsys.readouterr().out
