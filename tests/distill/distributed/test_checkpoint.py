from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill.errors import RunError


def test_what_two_ranks_save_one_loads_bit_for_bit(two_ranks: Path) -> None:
    read = json.loads((two_ranks / "read.json").read_text())
    assert read["ranks"] == 1
    assert read["differ"] == []
    assert read["epoch"] == 1
    assert {"table", "table.momentum1", "objective.user_projector.weight", "optimizer.0.exp_avg"} <= set(read["names"])


def test_a_checkpoint_is_safetensors_and_json_alone(two_ranks: Path) -> None:
    kinds = {path.suffix for path in (two_ranks / "checkpoint-1").iterdir()}
    assert kinds == {".safetensors"}
    assert json.loads((two_ranks / "checkpoint.json").read_text())["ranks"] == 2


def test_no_checkpoint_and_a_broken_one_are_named(tmp_path: Path) -> None:
    from distill.distributed.checkpoint import load

    with pytest.raises(RunError, match=r"no checkpoint to resume from"):
        load(tmp_path, {}, None)  # type: ignore[arg-type]
    (tmp_path / "checkpoint.json").write_text("{}")
    with pytest.raises(RunError, match=r"checkpoint.json: unreadable checkpoint \('folder'\)"):
        load(tmp_path, {}, None)  # type: ignore[arg-type]
