"""Co-teachers: read, fitted, blended with a teacher or alone, and found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import distill.methods.co_teachers
from distill.baselines import BASELINES
from distill.baselines.ease import ease
from distill.baselines.graph_filters import turbo_cf
from distill.data.interactions import Interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.errors import SettingError
from distill.evaluation.protocol import Protocol, evaluate_scores
from distill.methods.base import Teacher, require_teacher
from distill.methods.co_teachers import LIBRARY, BlendedTeacher, blend_teachers, describe_blend, parse_co_teachers

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthesize(SyntheticOptions(num_users=80, num_items=120, num_clusters=6, mean_interactions=12))


@pytest.fixture
def teacher(data: Interactions) -> Teacher:
    torch.manual_seed(1)
    return Teacher(torch.randn(data.num_users + data.num_items, 8), data.num_users)


def blend(text: str, data: Interactions, teacher: Teacher | None, folder: Path, tau: float = 1.0) -> BlendedTeacher:
    return blend_teachers(text, data, teacher, folder, None if teacher is None else "ff", tau)


def nothing(data: Interactions) -> sp.csr_matrix:
    return sp.csr_matrix(data.train.shape, dtype=np.float32)


def test_words_are_read() -> None:
    assert parse_co_teachers("none") == {}
    assert parse_co_teachers("auto") == dict.fromkeys(LIBRARY)
    assert parse_co_teachers("turbocf,ease") == {"turbocf": None, "ease": None}
    assert parse_co_teachers("turbocf=0.5,ideal-high=1e-1") == {"turbocf": 0.5, "ideal-high": 0.1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "'' is not one of turbocf, gfcf"),
        ("magic", "'magic' is not one of"),
        ("ease,ease", "or there twice"),
        ("ease=x", "the weight in 'ease=x' is not a number above 0"),
        ("ease=", "not a number above 0"),
        ("ease=nan", "not a number above 0"),
        ("ease=-1", "not a number above 0"),
        ("ease=0.5,gfcf", "give all of them one, or none"),
    ],
)
def test_other_words_are_refused(text: str, reason: str) -> None:
    with pytest.raises(SettingError, match=reason):
        parse_co_teachers(text)


def test_a_random_teacher_is_made_better_and_the_report_says_by_what(
    data: Interactions, teacher: Teacher, tmp_path: Path
) -> None:
    found = blend("auto", data, teacher, tmp_path)
    weights = found.report["weights"]
    assert weights["teacher"] == 1.0
    assert len(weights) > 1
    alone = evaluate_scores(lambda users: teacher.users[users] @ teacher.items.T, data, Protocol(split="validation"))
    assert found.report["validation"]["Recall@20"] > 2 * alone.metrics["Recall@20"]
    assert found.report["search"]["alone"]["teacher"] == pytest.approx(alone.metrics["Recall@20"])
    assert describe_blend({"teacher": 1.0, "ease (λ 3)": 0.5}) == "teacher + 0.5 ease (λ 3)"


def test_the_lists_are_those_of_the_standardised_sum(data: Interactions, teacher: Teacher, tmp_path: Path) -> None:
    found = blend("turbocf=2", data, teacher, tmp_path)
    (name,) = set(found.report["weights"]) - {"teacher"}
    alpha, degree = (float(part.split()[1]) for part in name.split("(")[1].rstrip(")").split(", "))
    users = np.arange(data.num_users)
    filtered = np.asarray(turbo_cf(data.train, alpha, int(degree)).score_rows(users), dtype=np.float64)
    own = (teacher.users @ teacher.items.T).double().numpy()
    parts = [(part - part.mean(1, keepdims=True)) / part.std(1, keepdims=True) for part in (own, filtered)]
    total = parts[0] + 2 * parts[1]
    every = found.preferences(nothing(data))
    np.testing.assert_array_equal(every.top(20), np.argsort(-total, axis=1)[:, :20])
    total[data.train.nonzero()] = -np.inf
    np.testing.assert_array_equal(found.preferences(data.train).top(20), np.argsort(-total, axis=1)[:, :20])


def test_scores_have_the_unit_of_the_students(data: Interactions, teacher: Teacher, tmp_path: Path) -> None:
    wide, narrow = (blend("turbocf=1", data, teacher, tmp_path, tau).preferences(data.train) for tau in (1.0, 0.05))
    items = wide.top(30)
    torch.testing.assert_close(narrow.score(items, CPU), 0.05 * wide.score(items, CPU))


def test_scorers_teach_alone(data: Interactions, tmp_path: Path) -> None:
    found = blend("ease", data, None, tmp_path)
    assert (found.dim, found.num_users, len(found.features)) == (0, data.num_users, data.num_users + data.num_items)
    assert require_teacher(found, "ce", features=False) is found
    with pytest.raises(SettingError, match="'freqd' distills from one; give --teacher RUN"):
        require_teacher(found, "freqd")
    (name,) = found.report["weights"]
    strength = float(name.split()[-1].rstrip(")"))
    quality = evaluate_scores(ease(data.train, strength).score_rows, data, Protocol())
    assert found.report["test"]["Recall@20"] == pytest.approx(quality.metrics["Recall@20"], abs=1e-6)


def test_lists_are_made_once(
    data: Interactions, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = blend("turbocf", data, teacher, tmp_path)
    first.preferences(nothing(data))
    written = sorted(path.name for path in tmp_path.iterdir())
    assert len(written) == 2

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("fitted again")

    with monkeypatch.context() as patched:
        patched.setattr(distill.methods.co_teachers, "choose_blend", refuse)
        again = blend("turbocf", data, teacher, tmp_path)
        assert again.report == first.report
        for hidden in (data.train, nothing(data)):
            np.testing.assert_array_equal(again.preferences(hidden).top(9), first.preferences(hidden).top(9))
        with pytest.raises(AssertionError, match="fitted again"):
            blend("ease", data, teacher, tmp_path)


def test_ease_is_left_out_where_it_does_not_fit_unless_it_was_asked_for(
    data: Interactions, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_big(*_: object, **__: object) -> None:
        raise SettingError("ease: too big")

    monkeypatch.setitem(BASELINES, "ease", too_big)
    assert blend("auto", data, teacher, tmp_path).report["left_out"] == {
        "ease": "ease: too big; or name it: --co-teachers turbocf,gfcf,ease,itemknn,ials"
    }
    with pytest.raises(SettingError, match="too big"):
        blend("turbocf,ease", data, teacher, tmp_path)


@pytest.mark.parametrize("name", ["ideal-low", "ideal-high", "ideal-all"])
def test_bands_teach_for_ablations(data: Interactions, teacher: Teacher, tmp_path: Path, name: str) -> None:
    assert blend(f"{name}=0.5", data, teacher, tmp_path).report["weights"] == {"teacher": 1.0, name: 0.5}


def test_of_whom_nothing_is_known_gets_what_is_popular(data: Interactions, tmp_path: Path) -> None:
    taken = data.train.toarray()
    taken[7] = 0
    train = sp.csr_matrix(taken)
    lists = blend("turbocf", replace(data, train=train), None, tmp_path).preferences(train)
    counts = taken.sum(axis=0)
    np.testing.assert_array_equal(counts[lists.top(10)[7]], np.sort(counts)[::-1][:10])
