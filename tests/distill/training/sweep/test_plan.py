from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from distill.errors import SettingError
from distill.methods.freqd import FreqDSettings
from distill.training.sweep.plan import Plan, parse_space


def build_plan(*ranges: str, method: str = "freqd", **fixed: str) -> Plan:
    return Plan(Path("data"), Path("my teacher"), method, "bprmf", {}, parse_space(ranges, [], method), fixed, seed=3)


def test_values_reach_the_student_the_training_and_the_method() -> None:
    plan = build_plan("alpha=0:1", "dim=2:9", "learning_rate=0:1", epochs="7", start="svd", projector="mlp")
    job = plan.build_job({"alpha": 0.25, "dim": 4, "learning_rate": 0.5})
    assert (job.dim, job.start, job.method, job.backbone) == (4, "svd", "freqd", "bprmf")
    assert (job.options.learning_rate, job.options.epochs, job.options.seed) == (0.5, 7, 3)
    settings: Any = (job.settings or ())[0]
    assert isinstance(settings, FreqDSettings)
    assert (settings.alpha, settings.projector, settings.order) == (0.25, "mlp", None)


def test_a_method_keeps_its_own_training_defaults_where_nothing_is_given() -> None:
    job = build_plan("temperature=1:9", method="ce").build_job({"temperature": 2.0})
    assert (job.options.learning_rate, job.options.batch_size) == (5e-3, 256)


def test_every_end_and_choice_is_checked_before_anything_is_trained() -> None:
    build_plan("alpha=0:1").check()
    with pytest.raises(SettingError, match=r"alpha: 2\.0 is outside \[0, 1\]"):
        build_plan("alpha=0:2").check()
    with pytest.raises(SettingError, match="dim: 0 is below 1"):
        build_plan("dim=0:2").check()
    choices = parse_space([], ["order=filter-first,sideways"], "freqd")
    with pytest.raises(SettingError, match="order: 'sideways' does not fit 'freqd'"):
        Plan(Path("data"), None, "freqd", "bprmf", {}, choices, {}).check()
    with pytest.raises(SettingError, match="epochs: 'many' does not fit 'training'"):
        build_plan("alpha=0:1", epochs="many").check()
    with pytest.raises(
        SettingError, match="seed: 'freqd' has no such setting; it has dim, start, continue_from, epochs"
    ):
        build_plan("alpha=0:1", seed="1").check()
    with pytest.raises(SettingError, match=r"nonsense: 'bprmf' has no such setting; it has none"):
        Plan(
            Path("data"), None, "freqd", "bprmf", {"nonsense": "1"}, parse_space(["alpha=0:1"], [], "freqd"), {}
        ).check()


def test_the_command_says_everything_that_is_not_at_its_default() -> None:
    plan = build_plan("alpha=0:1", "learning_rate=0:1", epochs="7", start="svd")
    words = shlex.split(plan.command({"alpha": 0.25, "learning_rate": 0.5}, Path("runs/best")))
    assert words[:3] == ["lowpass", "distill", "data"]
    pairs = list(zip(words[3::2], words[4::2], strict=True))
    assert pairs == [
        ("--out", "runs/best"), ("--teacher", "my teacher"), ("--method", "freqd"), ("--backbone", "bprmf"),
        ("--dim", "20"), ("--start", "svd"), ("--epochs", "7"), ("--lr", "0.5"), ("--seed", "3"), ("--device", "cpu"),
        ("--set", "alpha=0.25"),
    ]  # fmt: skip


def test_a_bare_student_is_trained_by_train() -> None:
    plan = Plan(Path("d"), None, "scratch", "bprmf", {}, parse_space(["dim=2:9"], [], "scratch"), {}, max_seconds=9.0)
    assert plan.command({"dim": 5}, Path("o")) == (
        "lowpass train d --out o --backbone bprmf --dim 5 --max-seconds 9.0 --seed 0 --device cpu"
    )


def test_the_description_survives_json() -> None:
    described = build_plan("alpha=0:1", epochs="7").describe()
    assert json.loads(json.dumps(described)) == described
