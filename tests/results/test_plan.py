"""Plans: what a cell trains, equal budgets, and what is wrong with one."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.errors import SettingError
from results.cells import Cell, job_of
from results.plan import load_plan, num_trials
from tests.results.toy import PLAN, write_plan


def test_options_of_a_trial_win_over_the_studys_and_the_plans(tmp_path: Path) -> None:
    text = PLAN.replace("\ndim = 4", "\ndim = 4\ntraining = { epochs = 9, weight_decay = 0.5 }\ntrials = 1")
    plan = write_plan(tmp_path, text)
    first = job_of(plan, Cell(plan.studies[0], "best", 4, 0, 3)).options
    second = job_of(plan, Cell(plan.studies[0], "best", 4, 1, 3)).options
    assert (first.epochs, first.patience, first.weight_decay, first.seed) == (9, 4, 0.5, 3)
    assert second.weight_decay == 1e-4
    assert first.learning_rate == 5e-3, "the method's own default"


def test_every_job_of_our_own_plan_can_be_built_and_budgets_are_equal() -> None:
    plan = load_plan(Path(__file__).resolve().parents[2] / "results" / "plan.toml")
    assert plan.studies
    for study in plan.studies:
        counts: dict[str, int] = {}
        for dim, names in study.contestants_by_dim.items():
            assert len(set(names)) == len(names)
            for name in names:
                count = num_trials(plan, study, name)
                counts[name] = count
                jobs = [job_of(plan, Cell(study, name, dim, trial, 0)) for trial in range(count)]
                assert all(job.options.patience >= plan.training["patience"] for job in jobs)
                assert len({repr(job) for job in jobs}) == count, f"{name} tries something twice"
        others = {name: count for name, count in counts.items() if name not in study.trials_of}
        assert max(others.values()) <= study.trials
        assert all(counts[name] >= study.trials for name in study.trials_of)
        taught = max((counts.get(name, 0) for name in ("fd", "freqd")), default=0)
        assert counts.get("scratch", taught) >= taught, "what distillation is held against has as many trials"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[data]", "[data", "unreadable plan"),
        ('data = "toy"', 'data = "nothing"', "'nothing' is not in data; it has toy"),
        ('contestants = ["scratch", "best"]', 'contestants = ["scratch", "worst"]', "'worst' is not in contestants"),
        ('summary = ["svd"', 'summary = ["worst"', "'worst' is not in untrained or contestants"),
        ('"svd", "teacher-float16"', '"magic"', "'magic' is not in untrained"),
        ('split = "random"', 'splits = "random"', "splits"),
        ('split = "random"', 'user_minimum = "few"', "user_minimum"),
        ('source = "toy.csv"', 'sauce = "toy.csv"', "toy.source: Field required"),
        ("patience = 4\n", "patients = 4\n", "'patients' is not in training options; it has "),
        ('method = "freqd+ce"', 'method = "freqd+magic"', "'magic' is not one of"),
        ("dim = 4", 'dim = "four"', r"0\.dim"),
        ("\ndim = 4", "\nsize = 4", r"0\.size"),
    ],
)
def test_a_wrong_plan_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        write_plan(tmp_path, PLAN.replace(old, new))
