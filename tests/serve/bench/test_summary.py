from __future__ import annotations

import pytest

from serve.bench.closed_loop import Samples
from serve.bench.errors import LoadTestError
from serve.bench.summary import percentile, summarise
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb


def answer(search_us: int) -> bytes:
    return pb.RecommendResponse(timings=pb.Timings(search_us=search_us, total_us=2 * search_us)).SerializeToString()


def test_percentiles_are_values_that_were_observed() -> None:
    values = list(range(1, 101))
    assert [percentile(values, share) for share in (50, 95, 99, 100)] == [50, 95, 99, 100]


def test_summary_of_known_samples() -> None:
    samples = Samples(
        latencies_ns=[1_000_000, 3_000_000, 2_000_000],
        answers=[answer(10), answer(30), answer(20)],
        errors={"UNAVAILABLE": 1},
        seconds=1.5,
        load_cpu_seconds=0.75,
        server_cpu_seconds=0.3,
    )
    found = summarise(samples, in_flight=4)
    assert (found.in_flight, found.answered, found.errors) == (4, 3, {"UNAVAILABLE": 1})
    assert found.throughput == pytest.approx(2.0)
    assert (found.p50_ms, found.p99_ms, found.mean_ms) == pytest.approx((2.0, 3.0, 2.0))
    assert found.stages_p50_us["search"] == 20
    assert found.stages_mean_us["total"] == pytest.approx(40)
    assert found.load_busy == pytest.approx(0.5)
    assert found.server_cpu_us == pytest.approx(100_000)


def test_no_answer_is_an_error_that_counts_the_failures() -> None:
    with pytest.raises(LoadTestError, match="2 × UNAVAILABLE"):
        summarise(Samples(errors={"UNAVAILABLE": 2}, seconds=1.0), in_flight=1)
