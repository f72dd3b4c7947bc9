"""The trainer, its checkpoints and the batch job, run for real on a small invented data set."""

from __future__ import annotations

import csv
import json
import shlex
from dataclasses import fields, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distill.methods.candidates
import distill.methods.co_teachers
import distill.training.checkpoint
import distill.training.job
import distill.training.trainer
from distill.commands.train import SHARDING
from distill.commands.train import distill as distill_command
from distill.data.interactions import Interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.errors import NotFiniteError, RunError, SettingError
from distill.evaluation.protocol import Protocol, evaluate
from distill.methods.freqd import FreqDSettings
from distill.run import Run, open_run, open_trajectory
from distill.storage import write_file
from distill.training.job import FLAGS, Job, build_job, command_line, describe, run_job
from distill.training.sweep.plan import sweepable
from distill.training.tracker import Tracker
from distill.training.trainer import Trainer, TrainingOptions, flush_denormals, open_device, thin_trajectory

OPTIONS = TrainingOptions(epochs=6, batch_size=128, learning_rate=0.01, eval_every=2, patience=6)
FREQD = FreqDSettings(variant="cooccurrence", projector="mlp", keep_prob=0.5)


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthesize(SyntheticOptions(num_users=60, num_items=50, num_clusters=6, mean_interactions=10))


@pytest.fixture(scope="module")
def teacher(data: Interactions, tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "teacher"
    run_job(Job("bprmf", "scratch", 12, options=replace(OPTIONS, keep_checkpoints=2)), data, path)
    return open_run(path)


def quick_job(method: str, **changes: Any) -> Job:
    settings = {"freqd": (FREQD,)}.get(method)
    return Job("bprmf", method, 4, settings, replace(OPTIONS, **changes))


def assert_same_run(one: Path, two: Path) -> None:
    first, second = open_run(one), open_run(two)
    np.testing.assert_array_equal(first.user_embeddings, second.user_embeddings)
    np.testing.assert_array_equal(first.item_embeddings, second.item_embeddings)
    for name in ("validation", "test", "test_all_users"):
        assert first.metrics[name] == second.metrics[name]


def interrupt(monkeypatch: pytest.MonkeyPatch, job: Job, data: Interactions, out: Path, teacher: Run | None) -> None:
    """Stop a run by Ctrl-C in its fourth epoch, after the checkpoint of the third."""
    advance, calls = Tracker.advance, []

    def stop_at_fourth(self: Tracker, loss: float) -> None:
        calls.append(loss)
        if len(calls) == 4:
            raise KeyboardInterrupt
        advance(self, loss)

    with monkeypatch.context() as patch:
        patch.setattr(distill.training.trainer, "CHECKPOINT_SECONDS", -1.0)
        patch.setattr(Tracker, "advance", stop_at_fourth)
        with pytest.raises(KeyboardInterrupt):
            run_job(job, data, out, teacher=teacher)


@pytest.mark.parametrize("method", ["scratch", "fd", "freqd"])
def test_a_seed_gives_the_same_embeddings_twice(data: Interactions, teacher: Run, tmp_path: Path, method: str) -> None:
    given = None if method == "scratch" else teacher
    for name in ("one", "two"):
        run_job(quick_job(method), data, tmp_path / name, teacher=given)
    assert_same_run(tmp_path / "one", tmp_path / "two")
    run_job(quick_job(method, seed=1), data, tmp_path / "other", teacher=given)
    assert not np.array_equal(open_run(tmp_path / "one").item_embeddings, open_run(tmp_path / "other").item_embeddings)


@pytest.mark.parametrize("method", ["scratch", "freqd", "de", "rrd", "dcd", "rcekd", "hetcomp"])
def test_a_resumed_run_ends_where_a_straight_one_does(
    data: Interactions, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    given = None if method == "scratch" else teacher
    run_job(quick_job(method), data, tmp_path / "straight", teacher=given)
    resumed = tmp_path / "resumed"
    interrupt(monkeypatch, quick_job(method), data, resumed, given)
    assert sorted(path.name for path in resumed.iterdir()) == ["checkpoint-3.safetensors", "checkpoint.json"]
    run_job(quick_job(method), data, resumed, teacher=given, resume=True)
    assert_same_run(tmp_path / "straight", resumed)
    histories = []
    for path in (tmp_path / "straight", resumed):
        with (path / "history.csv").open(newline="", encoding="utf-8") as stream:
            histories.append([{k: v for k, v in row.items() if "seconds" not in k} for row in csv.DictReader(stream)])
    assert histories[0] == histories[1]
    assert [row["epoch"] for row in histories[0]] == ["2.0", "4.0", "6.0"]
    assert not list(resumed.glob("checkpoint*")), "a finished run needs no checkpoint"


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (quick_job("scratch", learning_rate=0.02), "'training.learning_rate' was 0.01 and is now 0.02"),
        (quick_job("scratch", seed=5), "'seed' was 0 and is now 5"),
        (replace(quick_job("scratch"), dim=5), "'dim' was 4 and is now 5"),
    ],
)
def test_resume_with_other_settings_names_the_setting(
    data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: Job, named: str
) -> None:
    interrupt(monkeypatch, quick_job("scratch"), data, tmp_path / "run", None)
    with pytest.raises(RunError, match=named):
        run_job(changed, data, tmp_path / "run", resume=True)


def test_an_unfinished_run_needs_resume_and_resume_needs_a_checkpoint(
    data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, quick_job("scratch"), data, tmp_path / "run", None)
    with pytest.raises(RunError, match=r"unfinished run is there; continue it with --resume"):
        run_job(quick_job("scratch"), data, tmp_path / "run")
    with pytest.raises(RunError, match=r"no finished run there"):
        open_run(tmp_path / "run")
    with pytest.raises(RunError, match="no checkpoint to resume from"):
        run_job(quick_job("scratch"), data, tmp_path / "fresh", resume=True)


def test_a_finished_run_and_a_file_are_never_overwritten(data: Interactions, teacher: Run, tmp_path: Path) -> None:
    before = (teacher.path / "embeddings.safetensors").read_bytes()
    with pytest.raises(RunError, match="a finished run is there"):
        run_job(quick_job("scratch"), data, teacher.path)
    assert (teacher.path / "embeddings.safetensors").read_bytes() == before
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="is a file"):
        run_job(quick_job("scratch"), data, tmp_path / "file")


@pytest.mark.parametrize("broken", ["checkpoint.json", "checkpoint-3.safetensors"])
def test_a_broken_checkpoint_is_named(
    data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    interrupt(monkeypatch, quick_job("scratch"), data, tmp_path, None)
    path = tmp_path / broken
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match="unreadable checkpoint"):
        run_job(quick_job("scratch"), data, tmp_path, resume=True)


def test_a_crash_between_the_two_files_of_a_checkpoint_leaves_the_old_one(
    data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_job(quick_job("scratch"), data, tmp_path / "straight")
    out = tmp_path / "crashed"
    interrupt(monkeypatch, quick_job("scratch"), data, out, None)

    def fail_on_json(path: Path, content: bytes) -> None:
        if path.suffix == ".json":
            raise OSError("disk full")
        write_file(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(distill.training.trainer, "CHECKPOINT_SECONDS", -1.0)
        patch.setattr(distill.training.checkpoint, "write_file", fail_on_json)
        with pytest.raises(OSError, match="disk full"):
            run_job(quick_job("scratch"), data, out, resume=True)
    assert json.loads((out / "checkpoint.json").read_text())["progress"]["epoch"] == 3
    run_job(quick_job("scratch"), data, out, resume=True)
    assert_same_run(tmp_path / "straight", out)


def test_a_cosine_schedule_lets_the_learning_rate_fall_to_0(
    data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = []
    advance = Tracker.advance

    def remember(self: Tracker, loss: float) -> None:
        rates.append(seen[0].optimizer.param_groups[0]["lr"])
        advance(self, loss)

    seen: list[distill.training.trainer.Trainer] = []
    fit = distill.training.trainer.Trainer.fit

    def fit_and_watch(self: distill.training.trainer.Trainer) -> Any:
        seen.append(self)
        return fit(self)

    monkeypatch.setattr(Tracker, "advance", remember)
    monkeypatch.setattr(distill.training.trainer.Trainer, "fit", fit_and_watch)
    run_job(quick_job("scratch", schedule="cosine", epochs=4, patience=4), data, tmp_path / "run")
    np.testing.assert_allclose(rates, 0.01 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2)


def test_denormals_are_0_in_an_epoch_and_nowhere_else() -> None:
    tiny = torch.tensor(1e-39)
    with flush_denormals():
        assert (tiny * 1.0).item() == 0.0
    assert (tiny * 1.0).item() > 0.0


@pytest.mark.parametrize("method", ["scratch", "freqd", "de", "rrd", "ce", "hetcomp"])
def test_a_training_by_rows_resumes_where_it_stopped(
    data: Interactions, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    job = quick_job(method, optimizer="row-adam", schedule="cosine")
    given = None if method == "scratch" else teacher
    metrics = run_job(job, data, tmp_path / "straight", teacher=given)
    assert metrics["training"]["optimizer"] == "row-adam"
    interrupt(monkeypatch, job, data, tmp_path / "resumed", given)
    run_job(job, data, tmp_path / "resumed", teacher=given, resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_rows_are_moved_alone_from_a_size_on_or_where_asked(
    data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def optimizer(backbone: str = "bprmf", **options: Any) -> str:
        job = build_job("scratch", {"dim": 4, "epochs": 1, "eval_every": 1, **options}, backbone=backbone)
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        return str(run_job(job, data, out)["training"]["optimizer"])

    assert optimizer() == "adam"
    assert optimizer(optimizer="row-adam") == "row-adam"
    monkeypatch.setattr(distill.training.trainer, "ROW_ADAM_ENTITIES", 110)
    assert optimizer() == "row-adam"
    assert optimizer(optimizer="adam") == "adam"
    assert optimizer("lightgcn") == "adam"
    with pytest.raises(SettingError, match=r"optimizer: 'row-adam' moves .* 'lightgcn' .* give --optimizer adam"):
        optimizer("lightgcn", optimizer="row-adam")


def test_a_training_by_rows_learns_what_adam_does(tmp_path: Path) -> None:
    data = synthesize(SyntheticOptions(num_users=300, num_items=120, num_clusters=8, mean_interactions=20))
    quality = {"adam": 0.0, "row-adam": 0.0}
    for optimizer, seed in product(quality, (0, 1)):
        job = quick_job("scratch", epochs=30, batch_size=64, patience=30, optimizer=optimizer, seed=seed)
        quality[optimizer] += run_job(replace(job, dim=8), data, tmp_path / f"{optimizer}-{seed}")["test"]["NDCG@10"]
    assert quality["row-adam"] > 0.9 * quality["adam"]


def test_early_stop_honours_patience(data: Interactions, tmp_path: Path) -> None:
    options = {"epochs": 50, "learning_rate": 1e-12, "eval_every": 2, "patience": 5}
    training = run_job(quick_job("scratch", **options), data, tmp_path / "run")["training"]
    assert training["best_epoch"] == 2
    assert training["epochs"] == 2 + 5


def test_the_best_epoch_is_kept_not_the_last(data: Interactions, tmp_path: Path) -> None:
    job = quick_job("scratch", epochs=30, learning_rate=0.1, eval_every=1, patience=30)
    metrics = run_job(job, data, tmp_path / "run")
    with (tmp_path / "run" / "history.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    best = max(rows, key=lambda row: float(row["NDCG@10"]))
    assert metrics["training"]["best_epoch"] == float(best["epoch"]) < 30
    assert metrics["validation_all_users"]["NDCG@10"] == pytest.approx(float(best["NDCG@10"]), abs=1e-6)


def test_a_time_limit_ends_a_training_after_an_evaluation_and_is_in_the_rule(
    data: Interactions, tmp_path: Path
) -> None:
    job = quick_job("scratch", epochs=30, eval_every=2, patience=30, max_seconds=1e-6)
    training = run_job(job, data, tmp_path / "run")["training"]
    assert training["epochs"] == training["best_epoch"] == 2
    assert training["stopping_rule"].endswith("evaluated every 2; at most 1e-06 s of training")


def test_metrics_and_config_say_what_was_done(data: Interactions, teacher: Run, tmp_path: Path) -> None:
    job = quick_job("freqd")
    returned = run_job(job, data, tmp_path / "run", teacher=teacher)
    run = open_run(tmp_path / "run")
    assert run.metrics == json.loads(json.dumps(returned))
    assert set(run.metrics) == {"validation", "validation_all_users", "test", "test_all_users", "training"}
    embeddings = (run.user_embeddings, run.item_embeddings)
    assert run.metrics["test"] == evaluate(*embeddings, data).as_dict()
    assert run.metrics["validation_all_users"] == (
        evaluate(*embeddings, data, Protocol("validation", average="all")).as_dict()
    )
    training = run.metrics["training"]
    assert training["epochs"] == 6
    assert training["best_epoch"] in {2, 4, 6}
    assert training["peak_memory_bytes"] > 10**7
    assert 0 < training["processor_seconds"] < 60
    assert "6 epochs, evaluated every 2" in training["stopping_rule"]
    assert run.config == json.loads(json.dumps(describe(job, data, teacher)))
    assert run.config["teacher"] == str(teacher.path)
    assert run.config["method_settings"]["variant"] == "cooccurrence"
    assert run.config["data"] == {"name": "synthetic", "fingerprint": data.fingerprint}
    assert "device" not in run.config["training"], "where it ran is no setting of the result"
    assert run.dim == 4
    assert run.user_embeddings.shape == (60, 4)


def test_training_learns_more_than_popularity(tmp_path: Path) -> None:
    data = synthesize(SyntheticOptions(num_users=300, num_items=120, num_clusters=8, mean_interactions=20))
    job = quick_job("scratch", epochs=40, batch_size=256, eval_every=5, patience=40)
    metrics = run_job(replace(job, dim=8), data, tmp_path / "run")
    popularity = np.bincount(data.train.indices, minlength=data.num_items).astype(np.float32)[:, None]
    by_popularity = evaluate(np.ones((data.num_users, 1), dtype=np.float32), popularity, data).metrics["NDCG@10"]
    assert metrics["test"]["NDCG@10"] > 1.1 * by_popularity


def test_a_teacher_of_other_data_is_refused(teacher: Run, tmp_path: Path) -> None:
    other = synthesize(SyntheticOptions(num_users=60, num_items=50, num_clusters=6, mean_interactions=10, seed=1))
    with pytest.raises(RunError, match="fingerprint is not that of data set 'synthetic'"):
        run_job(quick_job("freqd"), other, tmp_path / "run", teacher=teacher)
    assert not (tmp_path / "run").exists()


def test_a_job_that_cannot_start_writes_nothing(data: Interactions, tmp_path: Path) -> None:
    empty = replace(data, validation=data.validation * 0)
    empty.validation.eliminate_zeros()
    with pytest.raises(SettingError, match="no validation interactions"):
        run_job(quick_job("scratch"), empty, tmp_path / "run")
    with pytest.raises(SettingError, match="give --teacher"):
        run_job(quick_job("freqd"), data, tmp_path / "run")
    with pytest.raises(SettingError, match="device"):
        run_job(quick_job("scratch", device="nonsense"), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"schedule": "linear"}, "schedule: 'linear' is not one of constant, cosine"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"optimizer": "sgd"}, "optimizer: 'sgd' is not one of auto, adam, row-adam"),
        ({"patience": 1, "eval_every": 2}, "patience: 1 epochs end before the first evaluation"),
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        replace(OPTIONS, **wrong)


@pytest.mark.parametrize(
    ("wrong", "named"), [({"backbone": "x"}, "backbone"), ({"method": "x"}, "method"), ({"dim": 0}, "dim")]
)
def test_unknown_names_are_refused(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        replace(Job(), **wrong)


def test_flat_settings_are_sorted_into_a_job() -> None:
    given = {
        "dim": "6",
        "start": "svd",
        "epochs": "7",
        "weight_decay": None,
        "ce.num_top": "5",
        "num_top": 9,
        "seed": 2,
    }
    job = build_job("freqd+ce", given, backbone="lpmf", backbone_settings={"alpha": "0.2"})
    assert (job.backbone, job.method, job.dim, job.start) == ("lpmf", "freqd+ce", 6, "svd")
    assert (job.options.epochs, job.options.seed, job.options.learning_rate) == (7, 2, 5e-3)
    settings: Any = (job.settings or ())[1]
    assert settings.num_top == 5, "what is said of a part wins"
    assert job.backbone_settings.alpha == 0.2
    assert build_job("scratch", {}) == Job()
    assert build_job("scratch", {"patience": 4, "eval_every": 2}).options.patience == 4


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        ({"epochs": "many"}, {}, "epochs: 'many' does not fit 'training'"),
        ({"dim": "wide"}, {}, "dim: 'wide' does not fit 'student'"),
        ({"dim": 0}, {}, "dim: 0 is below 1"),
        ({"patience": 1}, {}, "patience: 1 epochs end before the first evaluation"),
        ({"beta": 1}, {}, "beta: 'freqd' has no such setting; it has "),
        ({}, {"backbone": "abacus"}, "backbone: 'abacus' is not one of bprmf"),
        ({}, {"backbone_settings": {"nonsense": 1}}, "nonsense: 'bprmf' has no such setting; it has none"),
    ],
)
def test_flat_settings_that_do_not_fit_are_named(given: Any, more: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        build_job("freqd", given, **more)


@pytest.mark.parametrize(
    ("method", "given", "more"),
    [
        ("freqd", {"coefficients": "1,-0.5", "reference": True, "start": "svd", "dim": 3, "learning_rate": 0.0123}, {}),
        ("freqd+ce", {"freqd.alpha": 0.25, "ce.distillation_weight": 2.0, "distillation_weight": 0.5, "seed": 4}, {}),
        ("ce+rcekd", {"num_top": 7, "schedule": "cosine", "max_seconds": 9.0}, {}),
        ("kl", {}, {"backbone": "lpmf", "backbone_settings": {"alpha": 0.2}}),
    ],
)
def test_a_command_line_trains_the_job_it_was_made_of(method: str, given: Any, more: Any, tmp_path: Path) -> None:
    job = build_job(method, given, **more)
    words = shlex.split(command_line(job, tmp_path / "my data", tmp_path / "out", tmp_path / "teacher"))
    assert words[:2] == ["lowpass", "distill"]
    asked = distill_command.make_context("distill", words[2:]).params
    assert (asked.pop("data"), asked.pop("out")) == (tmp_path / "my data", tmp_path / "out")
    names = ("method", "backbone", "backbone_settings", "more")
    method, backbone, backbone_settings, settings = (asked.pop(name) for name in names)
    others = {"teacher", "resume", "as_json", "sharded", "restarts", *SHARDING}
    flat = {name: value for name, value in asked.items() if name not in others}
    assert build_job(method, {**flat, **settings}, backbone=backbone, backbone_settings=backbone_settings) == job


def test_a_command_line_says_that_interactions_alone_teach(tmp_path: Path) -> None:
    words = shlex.split(command_line(build_job("ce", {}), tmp_path, tmp_path / "out"))
    assert words[:2] == ["lowpass", "distill"]
    assert words[words.index("--teacher") + 1] == "none"
    assert command_line(build_job("scratch", {}), tmp_path, tmp_path / "out").startswith("lowpass train ")


@pytest.mark.parametrize(
    ("method", "given", "co_teachers"),
    [
        ("ce", {}, "auto"),
        ("freqd+ce", {}, "auto"),
        ("freqd", {}, "none"),
        ("ce", {"co_teachers": "none"}, "none"),
        ("ce", {"co_teachers": "turbocf=0.5, ease=1"}, "turbocf=0.5, ease=1"),
    ],
)
def test_what_learns_lists_has_co_teachers_unless_told(method: str, given: dict[str, str], co_teachers: str) -> None:
    assert build_job(method, given).co_teachers == co_teachers


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("freqd", {"co_teachers": "auto"}, "co_teachers: 'freqd' learns from no lists"),
        ("ce", {"co_teachers": ""}, "co_teachers: '' is not one of"),
        ("ce", {"alpha": 0.3}, "alpha: it smooths the teacher's embeddings.* give --co-teachers none"),
        ("ce+rcekd", {"ce.num_top": 501}, "num_top: 501 exceeds the 500 items .* or --co-teachers none"),
        ("ce", {"num_negatives": 64, "num_hard": 501}, "num_hard: 501 exceeds the 500 items .* that co-teachers list"),
        ("rcekd", {"in_turns": True, "num_candidates": 501}, "num_candidates: 501 exceeds the 500 items"),
    ],
)
def test_what_co_teachers_cannot_do_is_refused_before_they_do_anything(
    method: str, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        build_job(method, given)
    if "co_teachers" not in given:
        build_job(method, {**given, "co_teachers": "none"})


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("ce", {"num_negatives": 0, "num_hard": 501}),
        ("rcekd", {"in_turns": False, "num_candidates": 501}),
        ("rcekd", {"num_candidates": 501}),
    ],
)
def test_lists_of_the_student_alone_may_be_longer(method: str, given: dict[str, Any]) -> None:
    assert build_job(method, given).co_teachers == "auto"


@pytest.mark.parametrize("co_teachers", ["none", "ials"])
@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("ce", {"num_top": 4}, "num_top: 4 exceeds the 3 items a user that are listed .*; give less$"),
        ("ce", {"num_hard": 4, "num_top": 3}, "num_hard: 4 exceeds"),
        ("rcekd", {"num_candidates": 4, "num_top": 3}, "num_candidates: 4 exceeds"),
    ],
)
def test_longer_lists_than_an_index_makes_are_refused_before_it_makes_any(
    data: Interactions, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str,
    given: dict[str, Any], message: str, co_teachers: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(distill.methods.candidates, "WHOLE_PAIRS", 10)
    for module in (distill.training.job, distill.methods.co_teachers):
        monkeypatch.setattr(module, "STORED", 3)
    job = build_job(method, {**given, "co_teachers": co_teachers, "dim": 2})
    with pytest.raises(SettingError, match=message):
        run_job(job, data, tmp_path / "run", teacher=teacher)
    assert not (tmp_path / "run").exists()


def test_so_large_a_catalogue_is_not_smoothed(
    data: Interactions, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill.methods.candidates, "WHOLE_PAIRS", 10)
    monkeypatch.setattr(distill.training.job, "STORED", 3)
    job = build_job("ce", {"alpha": 0.3, "co_teachers": "none", "num_top": 3, "num_hard": 3})
    with pytest.raises(
        SettingError, match=r"alpha: it smooths .* so large a catalogue is taught by lists; leave it out$"
    ):
        run_job(job, data, tmp_path / "run", teacher=teacher)


@pytest.mark.parametrize("has_teacher", [True, False])
def test_a_run_with_co_teachers_goes_on_with_its_lists(
    data: Interactions, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_teacher: bool
) -> None:
    given = teacher if has_teacher else None
    job = replace(quick_job("ce+rcekd"), co_teachers="turbocf,gfcf")
    run_job(job, data, tmp_path / "straight", teacher=given)
    cut = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(distill.training.job, "Trainer", interrupt)
        with pytest.raises(TypeError):
            run_job(job, data, cut, teacher=given)
    assert [path.suffix for path in cut.iterdir()] == [".safetensors"], "lists, and no checkpoint yet"
    monkeypatch.setattr(distill.methods.co_teachers, "choose_blend", None)
    run_job(job, data, cut, teacher=given, resume=True)
    assert_same_run(tmp_path / "straight", cut)
    metrics = open_run(cut).metrics
    assert ("teacher" in metrics["blend"]["weights"]) == has_teacher
    assert metrics["blend"] == open_run(tmp_path / "straight").metrics["blend"] | {
        "processor_seconds": metrics["blend"]["processor_seconds"]
    }


def test_a_cut_run_with_co_teachers_is_resumed_as_if_never_cut(
    data: Interactions, teacher: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = replace(quick_job("ce+rcekd"), co_teachers="turbocf")
    run_job(job, data, tmp_path / "straight", teacher=teacher)
    interrupt(monkeypatch, job, data, tmp_path / "resumed", teacher)
    run_job(job, data, tmp_path / "resumed", teacher=teacher, resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")


def test_every_training_option_that_can_be_swept_has_a_flag() -> None:
    flags = {flag for option in distill_command.params for flag in option.opts}
    options = {field.name for field in fields(TrainingOptions)} & set(sweepable("freqd"))
    assert {"learning_rate", "epochs", "weight_decay"} <= options
    assert {FLAGS.get(name, f"--{name.replace('_', '-')}") for name in options} <= flags


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_cuda_is_refused_where_there_is_none() -> None:
    with pytest.raises(SettingError, match="no CUDA device is available here; use --device cpu"):
        open_device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
@pytest.mark.parametrize("method", ["scratch", "fd", "freqd"])
def test_cuda_trains_what_the_cpu_does(data: Interactions, teacher: Run, tmp_path: Path, method: str) -> None:
    given = None if method == "scratch" else teacher
    settings = (replace(FREQD, keep_prob=1.0),) if method == "freqd" else None
    results = []
    for device in ("cpu", "cuda"):
        job = replace(quick_job(method, device=device), settings=settings)
        run_job(job, data, tmp_path / device, teacher=given)
        results.append(open_run(tmp_path / device).item_embeddings)
    np.testing.assert_allclose(results[0], results[1], atol=5e-3)


def test_kept_checkpoints_are_earlier_bests_also_of_a_resumed_run(
    data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = quick_job("scratch", eval_every=1, keep_checkpoints=2)
    metrics = run_job(job, data, tmp_path / "straight")
    interrupt(monkeypatch, job, data, tmp_path / "resumed", None)
    run_job(job, data, tmp_path / "resumed", resume=True)
    kept = metrics["training"]["checkpoints"]
    assert len(kept) == 2
    assert kept == sorted(kept)
    assert kept[-1] < metrics["training"]["best_epoch"]
    straight, resumed = open_trajectory(tmp_path / "straight"), open_trajectory(tmp_path / "resumed")
    for one, two, epoch in zip(straight, resumed, kept, strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        np.testing.assert_array_equal(one[1], two[1])
        assert one[0].dtype == np.float16
        short = tmp_path / f"to-{epoch}"
        run_job(quick_job("scratch", eval_every=1, epochs=epoch), data, short)
        np.testing.assert_array_equal(one[1], open_run(short).item_embeddings.astype(np.float16))
    assert not (tmp_path / f"to-{kept[0]}" / "trajectory").exists(), "nothing is kept unless asked"


def test_thinning_spreads_epochs_up_to_the_last() -> None:
    trajectory = dict.fromkeys(range(10, 101, 10))
    thin_trajectory(trajectory, 110, 4)
    assert len(trajectory) == 4
    gaps = np.diff([0, *trajectory, 110])
    assert gaps.max() <= 2 * 110 / 5
    thin_trajectory(trajectory, 110, 0)
    assert not trajectory


def test_ials_is_solved_and_resumes(data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = build_job("scratch", {"dim": 6, "epochs": 6}, backbone="ials")
    metrics = run_job(job, data, tmp_path / "straight")
    interrupt(monkeypatch, job, data, tmp_path / "resumed", None)
    run_job(job, data, tmp_path / "resumed", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "resumed")
    assert metrics["training"]["epochs"] == 6
    assert metrics["training"]["optimizer"] == "closed form"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1e30}, r"diverged in epoch [12]: .*; no run is written.* a smaller --lr \(it was 1e[+]30\)"),
        # The numbers stay finite, the scores do not.
        ({"learning_rate": 1e19, "weight_decay": 0.0}, r"diverged in epoch [1-6]: "),
    ],
)
def test_a_training_that_diverges_says_when_and_leaves_no_run(
    data: Interactions, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(NotFiniteError, match=message) as caught:
        run_job(quick_job("scratch", **changes), data, tmp_path / "run")
    assert str(tmp_path / "run") in str(caught.value)
    assert not list((tmp_path / "run").iterdir())


def test_a_training_that_diverges_late_leaves_the_checkpoint_of_its_last_finite_epoch(
    data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_epoch = Trainer.train_epoch

    def spoil_the_third(self: Trainer) -> float:
        loss = train_epoch(self)
        if self.progress.epoch == 3:
            with torch.no_grad():
                self.student.features[1, 0] = torch.nan
        return loss

    monkeypatch.setattr(distill.training.trainer, "CHECKPOINT_SECONDS", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", spoil_the_third)
        with pytest.raises(NotFiniteError, match="diverged in epoch 3: 'table' holds numbers that are not finite"):
            run_job(quick_job("scratch"), data, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2.safetensors"]
    run_job(quick_job("scratch"), data, tmp_path / "run", resume=True)
    run_job(quick_job("scratch"), data, tmp_path / "straight")
    assert_same_run(tmp_path / "run", tmp_path / "straight")


@pytest.mark.parametrize(
    "changes", [{"learning_rate": float("nan")}, {"learning_rate": float("inf")}, {"weight_decay": float("nan")}]
)
def test_settings_that_are_no_numbers_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match="both finite"):
        replace(OPTIONS, **changes)
