"""The order of things in a sweep, with trials that take no time; processes have their own tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest
from optuna.study import Study
from optuna.trial import TrialState

from distill.commands.sweep import render_summary
from distill.errors import RunError, SettingError
from distill.storage import write_file
from distill.training.runner import Outcome, Training
from distill.training.sweep import study as sweep_study
from distill.training.sweep.plan import Plan, parse_space
from distill.training.sweep.study import (
    MAX_FAILURES,
    Budget,
    open_study,
    run_sweep,
    sampled_values,
    summarize,
)

FINGERPRINTS = {"data": "d", "teacher": "t"}


class InstantChildren:
    """Stands in for `Children`: quality is highest at alpha 0.7 and grows with dim; `fates` says what befalls whom."""

    fates: dict[int, list[str]]
    ran: list[int]

    def __init__(self, count: int) -> None:
        self.count = count
        self.waiting: list[tuple[int, Training]] = []

    @classmethod
    def __class_getitem__(cls, kind: type) -> type[Self]:
        assert kind is int
        return cls

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @property
    def busy(self) -> bool:
        return bool(self.waiting)

    @property
    def full(self) -> bool:
        return len(self.waiting) >= self.count

    def start(self, key: int, work: Training) -> None:
        self.waiting.append((key, work))

    def wait(self) -> list[Outcome[int]]:
        key, work = self.waiting.pop()
        self.ran.append(key)
        match self.fates.get(key, []):
            case ["interrupt", *_]:
                raise KeyboardInterrupt
            case ["kill", *rest]:
                self.fates[key] = rest
                return [Outcome(key, "killed", "its process ended with code -9")]
            case ["diverge", *_]:
                return [Outcome(key, "diverged", "trials/001: training diverged in epoch 3")]
            case ["fail", *_]:
                return [Outcome(key, "failed", "Traceback\n  line\nValueError: wrong")]
        settings: Any = (work.job.settings or ())[0]
        quality = 1 - (settings.alpha - 0.7) ** 2 + work.job.dim / 100
        metrics = {"validation": {"Recall@20": quality}, "training": {"best_epoch": 5, "seconds": 1.5}}
        write_file(work.out / "metrics.json", json.dumps(metrics).encode())
        return [Outcome(key)]


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> type[InstantChildren]:
    InstantChildren.fates, InstantChildren.ran = {}, []
    monkeypatch.setattr(sweep_study, "Children", InstantChildren)
    return InstantChildren


def build_plan(choices: tuple[str, ...] = (), seed: int = 0) -> Plan:
    axes = parse_space(["alpha=0:1"], choices, "freqd")
    return Plan(Path("data"), Path("teacher"), "freqd", "bprmf", {}, axes, {}, seed)


def sweep(out: Path, budget: Budget, plan: Plan | None = None, prints: Mapping[str, Any] = FINGERPRINTS) -> Any:
    plan = plan or build_plan()
    with open_study(plan, prints, out, budget.grid_points) as study:
        run_sweep(study, plan, out, budget, ended=lambda: None)
        return summarize(study, plan, out, "toy")


def open_again(out: Path) -> Study:
    with open_study(build_plan(), FINGERPRINTS, out, None) as study:
        return study


@pytest.mark.usefixtures("children")
def test_the_sampler_finds_the_optimum_and_the_same_seed_the_same_trials(tmp_path: Path) -> None:
    found = sweep(tmp_path / "a", Budget(trials=25))
    assert len(found["trials"]) == 25
    assert found["best"]["settings"]["alpha"] == pytest.approx(0.7, abs=0.05)
    assert sweep(tmp_path / "b", Budget(trials=25))["best"]["settings"] == found["best"]["settings"]
    other = sweep(tmp_path / "c", Budget(trials=2), build_plan(seed=1))
    assert other["trials"][0]["settings"] != found["trials"][0]["settings"]


@pytest.mark.usefixtures("children")
def test_a_grid_tries_every_combination_once(tmp_path: Path) -> None:
    plan = build_plan(("dim=8,16",))
    found = sweep(tmp_path, Budget(trials=99, grid_points=3), plan)
    tried = [(trial["settings"]["alpha"], trial["settings"]["dim"]) for trial in found["trials"]]
    assert tried == [(alpha, dim) for alpha in (0.0, 0.5, 1.0) for dim in ("8", "16")]
    assert found["best"]["settings"] == {"alpha": 0.5, "dim": "16"}
    with pytest.raises(SettingError, match="grid: 4000 combinations are more than 1000"):
        sweep(tmp_path / "big", Budget(trials=99, grid_points=2000), plan)


def test_a_grid_may_be_done_in_sittings(tmp_path: Path, children: type[InstantChildren]) -> None:
    plan = build_plan(("dim=8,16",))
    sweep(tmp_path, Budget(trials=2, jobs=2, grid_points=3), plan)
    assert sorted(children.ran) == [0, 1]
    sweep(tmp_path, Budget(trials=99, jobs=2, grid_points=3), plan)
    assert sorted(children.ran) == [0, 1, 2, 3, 4, 5]


def test_a_sweep_that_is_repeated_only_adds_what_is_missing(tmp_path: Path, children: type[InstantChildren]) -> None:
    first = sweep(tmp_path, Budget(trials=3))
    assert sweep(tmp_path, Budget(trials=3)) == first
    more = sweep(tmp_path, Budget(trials=5))
    assert children.ran == [0, 1, 2, 3, 4]
    assert more["trials"][:3] == first["trials"]
    assert len({trial["settings"]["alpha"] for trial in more["trials"]}) == 5


def test_a_trial_that_was_cut_off_is_taken_up_with_its_settings(
    tmp_path: Path, children: type[InstantChildren]
) -> None:
    children.fates[1] = ["interrupt"]
    with pytest.raises(KeyboardInterrupt):
        sweep(tmp_path, Budget(trials=3, jobs=2))
    before = {trial.number: trial.params for trial in open_again(tmp_path).trials}
    assert [trial.state for trial in open_again(tmp_path).trials] == [TrialState.RUNNING] * 2
    children.fates.clear()
    found = sweep(tmp_path, Budget(trials=3, jobs=2))
    assert [trial["number"] for trial in found["trials"]] == [0, 1, 2]
    assert {trial.number: trial.params for trial in open_again(tmp_path).trials[:2]} == before


def test_a_killed_trial_gets_a_second_chance_and_no_third(tmp_path: Path, children: type[InstantChildren]) -> None:
    children.fates |= {0: ["kill"], 1: ["kill", "kill"]}
    found = sweep(tmp_path, Budget(trials=3))
    assert sorted(children.ran) == [0, 0, 1, 1, 2]
    assert [trial["value"] is None for trial in found["trials"]] == [False, True, False]
    assert found["trials"][1]["error"] == "its process ended with code -9"
    assert "1 of 3 trials failed:\n  trial 1: its process ended with code -9" in render_summary(found)


def test_a_failed_trial_is_marked_with_its_reason(tmp_path: Path, children: type[InstantChildren]) -> None:
    children.fates |= {0: ["fail"]}
    found = sweep(tmp_path, Budget(trials=2))
    assert found["trials"][0]["error"] == "ValueError: wrong"
    assert (tmp_path / "trials" / "000" / "error.txt").read_text().startswith("Traceback")
    assert found["best"]["number"] == 1


def test_a_trial_that_diverged_is_a_failed_one_and_not_the_end(tmp_path: Path, children: type[InstantChildren]) -> None:
    children.fates |= {1: ["diverge"]}
    found = sweep(tmp_path, Budget(trials=4))
    assert [trial["value"] is None for trial in found["trials"]] == [False, True, False, False]
    assert found["trials"][1]["error"] == "trials/001: training diverged in epoch 3"


def test_a_sweep_in_which_all_fails_stops_early_and_says_why(tmp_path: Path, children: type[InstantChildren]) -> None:
    children.fates |= {number: ["fail"] for number in range(20)}
    with pytest.raises(SettingError, match=r"trials/000: every trial has failed, .*: ValueError: wrong; cure it"):
        sweep(tmp_path, Budget(trials=20))
    assert len(children.ran) == MAX_FAILURES
    with pytest.raises(SettingError, match="every trial has failed"):
        sweep(tmp_path / "short", Budget(trials=1))


@pytest.mark.usefixtures("children")
def test_a_directory_holds_one_sweep(tmp_path: Path) -> None:
    sweep(tmp_path, Budget(trials=1))
    with pytest.raises(RunError, match="holds a sweep with another seed; repeat its settings"):
        sweep(tmp_path, Budget(trials=1), build_plan(seed=9))
    with pytest.raises(RunError, match="holds a sweep with another space"):
        sweep(tmp_path, Budget(trials=1), build_plan(("dim=8,16",)))
    with pytest.raises(RunError, match="holds a sweep with another teacher"):
        sweep(tmp_path, Budget(trials=1), prints={**FINGERPRINTS, "teacher": "other"})
    with pytest.raises(RunError, match="holds a sweep with another grid_points"):
        sweep(tmp_path, Budget(trials=1, grid_points=3))


def test_two_sweeps_never_write_one_directory(tmp_path: Path) -> None:
    plan = build_plan()
    with (
        open_study(plan, FINGERPRINTS, tmp_path, None),
        pytest.raises(RunError, match="another sweep is writing there"),
        open_study(plan, FINGERPRINTS, tmp_path, None),
    ):
        pass
    with open_study(plan, FINGERPRINTS, tmp_path, None):
        pass


def test_a_trial_that_died_before_it_had_settings_is_marked(tmp_path: Path, children: type[InstantChildren]) -> None:
    with open_study(build_plan(), FINGERPRINTS, tmp_path, None) as study:
        study.ask()
    found = sweep(tmp_path, Budget(trials=2))
    assert children.ran == [1]
    assert (found["trials"][0]["settings"], found["trials"][0]["error"]) == (None, "cut off before it had settings")


@pytest.mark.usefixtures("children")
def test_the_summary_shows_the_best_first_with_a_command(tmp_path: Path) -> None:
    found = sweep(tmp_path, Budget(trials=99, grid_points=3))
    lines = render_summary(found).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5]]
    assert cells[0] == ["trial", "alpha", "validation Recall@20", "best epoch", "training s"]
    assert [row[1] for row in cells[2:]] == ["0.5", "1.0", "0.0"]
    assert cells[2][1:] == ["0.5", "1.1600", "5", "1.5"]
    assert lines[-1].strip() == found["command"]
    assert f"--out {tmp_path / 'best'}" in found["command"]
    assert found["objective"].startswith("Recall@20 (validation")
    assert json.loads(json.dumps(found)) == found


@pytest.mark.usefixtures("children")
def test_what_is_printed_is_what_was_drawn_to_four_digits(tmp_path: Path) -> None:
    found = sweep(tmp_path, Budget(trials=2))
    trials = open_again(tmp_path).trials
    assert [trial["settings"] for trial in found["trials"]] == [sampled_values(build_plan().axes, t) for t in trials]
    assert all(len(str(trial["settings"]["alpha"])) <= 7 for trial in found["trials"])
