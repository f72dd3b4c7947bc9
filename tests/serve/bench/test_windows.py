from __future__ import annotations

import pytest

from serve.bench.windows import STAGES, one_after_another, percentile, read_stages, side_by_side
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from tests.serve.bench.toy_windows import window


def test_percentiles_are_values_that_were_observed() -> None:
    values = list(range(1, 101))
    assert [percentile(values, share) for share in (50, 95, 99, 100)] == [50, 95, 99, 100]


def test_stages_are_read_from_answers() -> None:
    timings = [pb.Timings(search_us=search, total_us=2 * search) for search in (10, 30, 20)]
    stages = read_stages([pb.RecommendResponse(timings=each).SerializeToString() for each in timings])
    assert stages[:, STAGES.index("search")].tolist() == [10, 30, 20]
    assert stages[:, STAGES.index("total")].mean() == pytest.approx(40)
    assert read_stages([]).shape == (0, 5)


def test_windows_merge_side_by_side_and_one_after_another() -> None:
    first, second = window([1, 2], 2.0, errors={"A": 1}, intended=5.0), window([3], 1.0, errors={"A": 2, "B": 1})
    both = side_by_side([first, second])
    assert (both.answered, both.seconds, both.errors, both.intended) == (3, 2.0, {"A": 3, "B": 1}, 5.0)
    queue = one_after_another([first, second])
    assert (queue.seconds, queue.throughput, queue.intended) == (3.0, 1.0, 5.0)
    assert queue.goodput(2.0) == pytest.approx(2 / 3)
    assert window([]).at(99) == float("inf")
