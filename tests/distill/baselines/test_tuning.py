from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp

from distill.baselines import (
    BASELINES,
    GRIDS,
    Baseline,
    SingularBasis,
    ease,
    gf_cf,
    item_knn,
    report_baselines,
    singular_basis,
    tune,
    tuning,
    turbo_cf,
)
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation import sample
from distill.evaluation.protocol import EvaluationReport, Protocol, evaluate_scores
from tests.distill.baselines.toy import scores_of
from tests.distill.toy import build_interactions, build_random


@pytest.mark.parametrize(
    "build",
    [
        lambda train: item_knn(train, 12, 0.0),
        lambda train: ease(train, 1.0),
        lambda train: gf_cf(train, 2, 0.3),
        lambda train: turbo_cf(train, 0.5, 2),
    ],
)
def test_the_checkerboard_is_learned(checkerboard: Interactions, build: Callable[[sp.csr_matrix], Baseline]) -> None:
    baseline = build(checkerboard.train)
    protocol = Protocol(mask="train+validation", cutoffs=(1,))
    assert evaluate_scores(baseline.score_rows, checkerboard, protocol).metrics["Recall@1"] == 1.0


@pytest.mark.parametrize("name", list(BASELINES))
def test_tuning_keeps_the_point_that_is_best_on_validation(rng: np.random.Generator, name: str) -> None:
    data = build_random(rng)
    tuned = tune(name, data)
    assert [{k: v for k, v in point.items() if k != "NDCG@10"} for point in tuned.tried] == list(GRIDS[name])
    best = max(point["NDCG@10"] for point in tuned.tried)
    again = BASELINES[name](data.train, **tuned.settings)
    value = evaluate_scores(again.score_rows, data, Protocol(split="validation")).metrics["NDCG@10"]
    assert value == pytest.approx(best, abs=1e-6)
    np.testing.assert_allclose(scores_of(tuned.baseline, data.train), scores_of(again, data.train), atol=1e-5)
    assert tuned.seconds >= 0


def test_one_decomposition_serves_the_whole_grid(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def count(train: sp.csr_matrix, rank: int) -> SingularBasis:
        calls.append(rank)
        return singular_basis(train, rank)

    monkeypatch.setattr(tuning, "singular_basis", count)
    assert len(tune("gfcf", build_random(rng)).tried) == 12
    assert calls == [256]


def test_tuning_without_validation_is_refused() -> None:
    data = build_interactions((2, 12), train=[(0, 0), (1, 1)], test=[(0, 1)])
    with pytest.raises(SettingError, match="no validation interactions"):
        tune("popularity", data)


def test_large_data_is_tuned_on_some_users_and_few_points(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = build_random(rng)
    with_items = int((np.diff(data.validation.indptr) > 0).sum())
    monkeypatch.setattr(sample, "MOST_SCORES", 0)
    monkeypatch.setattr(sample, "LEAST_USERS", 4)
    monkeypatch.setattr(tuning, "TUNED_USERS", 3)
    ranked: list[int] = []

    def watch(score_rows: object, compared: Interactions, protocol: Protocol) -> EvaluationReport:
        report = evaluate_scores(score_rows, compared, protocol)  # type: ignore[arg-type]
        ranked.append(report.num_users)
        return report

    monkeypatch.setattr(tuning, "evaluate_scores", watch)
    tuned = tune("itemknn", data)
    assert with_items > 4
    assert ranked == [3, 3]
    assert [{k: v for k, v in point.items() if k != "NDCG@10"} for point in tuned.tried] == list(
        tuning.LARGE_GRIDS["itemknn"]
    )


def test_what_refuses_for_its_memory_is_left_out(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.baselines.graph_filters.BASIS_MAX_BYTES", 10)
    reports = report_baselines(build_random(rng), Protocol(), ease_max_bytes=10)
    assert {name for name, report in reports.items() if "refused" in report} == {"ease", "gfcf"}
    assert "leave out what needs them (gfcf)" in reports["gfcf"]["refused"]


def test_every_point_of_a_large_grid_is_one_of_the_grid() -> None:
    assert all(point in GRIDS[name] for name, grid in tuning.LARGE_GRIDS.items() for point in grid)
