from __future__ import annotations

import re

import pytest

from serve.answers.errors import InvalidRequest
from serve.answers.limits import Limits
from serve.answers.types import Query


def batch(size: int, k: int, **options: float) -> list[Query]:
    return [Query("u", k=k, **options)] * size  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "queries",
    [
        batch(1000, 20),
        batch(1000, 1000),
        batch(1000, 20, diversity=0.5),
        batch(1, 500, diversity=0.5),
        batch(1, 1000, offset=10_000),
        [],
    ],
)
def test_what_is_ordinary_is_not_too_much(queries: list[Query]) -> None:
    Limits().check_cost(queries)


@pytest.mark.parametrize(
    "queries",
    [
        batch(1000, 500, diversity=0.5),
        batch(1000, 500, popularity_discount=0.5),
        batch(1000, 10, offset=490, diversity=0.1),
        batch(1000, 1000, offset=10_000),
    ],
)
def test_what_would_hold_a_thread_for_long_is_refused_with_what_to_lower(queries: list[Query]) -> None:
    limits = Limits()
    with pytest.raises(InvalidRequest) as caught:
        limits.check_cost(queries)
    (violation,) = caught.value.violations
    assert violation.field == "requests"
    found = re.search(
        r"cost [\d,]+ together .* at most 1,000,000: lower k, or send (\d+) at once", violation.description
    )
    assert found is not None
    limits.check_cost(queries[: int(found[1])])
    with pytest.raises(InvalidRequest):
        limits.check_cost(queries[: int(found[1]) + 1])


def test_the_bound_is_a_setting() -> None:
    Limits(max_batch_cost=5_000_000).check_cost(batch(1000, 500, diversity=0.5))
    with pytest.raises(InvalidRequest, match="at most 50: lower k, or send 2 at once"):
        Limits(max_batch_cost=50).check_cost(batch(3, 20))


def test_names_of_a_model_are_bounded_in_bytes() -> None:
    Limits(max_id_bytes=4).check_selection(name="four", version="", label="çç")
    with pytest.raises(InvalidRequest) as caught:
        Limits(max_id_bytes=4).check_selection(name="fives", version="1", label="ççç")
    assert [wrong.field for wrong in caught.value.violations] == ["model.name", "model.label"]
