from __future__ import annotations

from typing import Any

import pytest

import distill.methods.candidates
from distill.data.interactions import Interactions
from distill.errors import SettingError
from export.frontier.plan import Plan


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"methods": ("freqd", "magic")}, "method: 'magic' is not one of"),
        ({"methods": ("scratch+ce",)}, "cannot be composed"),
        ({"dims": ()}, "dims: give at least one"),
        ({"precisions": ("int4",)}, "precisions: 'int4' is not one of float32, float16, int8"),
        ({"baselines": ("oracle",)}, "baselines: 'oracle' is not one of popularity, itemknn, ease, gfcf, turbocf"),
        ({"co_teachers": "nobody"}, "co_teachers: 'nobody' is not one of"),
        ({"backbone": "abacus"}, "backbone: 'abacus' is not one of"),
    ],
)
def test_what_is_not_known_is_named(given: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingError, match=named):
        Plan(**given)


@pytest.mark.parametrize("dim", [0, 16, 17])
def test_students_are_smaller_than_their_teacher(dim: int) -> None:
    with pytest.raises(SettingError, match=f"dims: {dim} must be from 1 to below the teacher's 16"):
        Plan(dims=(4, dim)).require_below(16)


def test_a_run_for_every_method_and_dimension_with_the_methods_own_defaults(data: Interactions) -> None:
    jobs = Plan(methods=("scratch", "freqd+ce"), dims=(4, 8), training={"epochs": 7, "max_seconds": None}).jobs(data)
    assert list(jobs) == ["scratch-d4", "freqd+ce-d4", "scratch-d8", "freqd+ce-d8"]
    assert {(job.options.epochs, job.options.max_seconds) for job in jobs.values()} == {(7, None)}
    assert jobs["scratch-d4"].options.learning_rate == 1e-3
    assert jobs["freqd+ce-d8"].options.learning_rate == 5e-3
    assert Plan(methods=()).jobs(data) == {}


def test_students_of_large_data_are_trained_as_distill_trains_them(
    data: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill.methods.candidates, "WHOLE_PAIRS", 10)
    jobs = Plan(methods=("scratch", "ce"), dims=(4,), training={"epochs": 3, "schedule": None}).jobs(data)
    started = {name: (job.start, job.options.epochs, job.options.schedule) for name, job in jobs.items()}
    assert started == {"scratch-d4": ("random", 3, "constant"), "ce-d4": ("svd", 3, "cosine")}


def test_co_teachers_are_for_the_methods_that_learn_lists(data: Interactions) -> None:
    jobs = Plan(methods=("scratch", "freqd", "ce"), dims=(4,), co_teachers="ease=0.5").jobs(data)
    assert {name: job.co_teachers for name, job in jobs.items()} == {
        "scratch-d4": "none", "freqd-d4": "none", "ce-d4": "ease=0.5",
    }  # fmt: skip
    assert Plan(methods=("ce",), dims=(4,)).jobs(data)["ce-d4"].co_teachers == "auto"


def test_the_teacher_is_quantised_to_the_students_bytes_below_a_byte_a_number() -> None:
    assert Plan(dims=(8, 16)).code_bytes(64) == [8, 16, 32]
    assert Plan(dims=(8, 16), precisions=("float32",)).code_bytes(65) == [32, 64]
