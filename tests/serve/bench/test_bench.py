from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

import lowpass
from serve.bench.closed_loop import connect
from serve.bench.errors import LoadTestError
from serve.bench.experiments import compare, find_rate, is_stable, keeps_up, run_until_stable
from serve.bench.generator import Asking, Generator
from serve.bench.loops import OpenPlan, poisson_arrivals, run_closed_window, run_open_loop
from serve.bench.report import describe, hgrm, hgrm_shares
from serve.bench.window import Window, one_after_another, side_by_side
from serve.bench.workload import Workload
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from tests.serve.processes import serving

PAYLOAD = pb.RecommendRequest(user_id="ann").SerializeToString()


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    servers = []

    def start(seconds: Callable[[], float], threads: int = 64) -> str:
        def recommend(request: pb.RecommendRequest, context: grpc.ServicerContext) -> pb.RecommendResponse:
            time.sleep(seconds())
            return pb.RecommendResponse(item_ids=["i"], timings=pb.Timings(total_us=7, search_us=3))

        handler = grpc.unary_unary_rpc_method_handler(
            recommend, pb.RecommendRequest.FromString, pb.RecommendResponse.SerializeToString
        )
        server = grpc.server(ThreadPoolExecutor(threads))
        methods = grpc.method_handlers_generic_handler("lowpass.v1.RecommenderService", {"Recommend": handler})
        server.add_generic_rpc_handlers((methods,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    yield start
    for server in servers:
        server.stop(0).wait()


def forever() -> Iterator[bytes]:
    while True:
        yield PAYLOAD


def window(latencies: list[float], seconds: float = 1.0, **more: object) -> Window:
    values = np.array(latencies)
    return Window(values, np.zeros(len(values)), np.zeros((len(values), 5)), seconds, **more)  # type: ignore[arg-type]


def test_arrivals_are_a_poisson_process() -> None:
    moments = np.array(poisson_arrivals(500.0, 40.0, np.random.default_rng(0)))
    assert (np.diff(moments) > 0).all()
    assert moments[-1] < 40
    assert len(moments) == pytest.approx(20_000, rel=0.03)
    gaps = np.diff(moments)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05), "exponential gaps have a deviation equal to their mean"


def test_an_open_loop_counts_the_wait_that_a_stall_causes(serve: Callable[..., str]) -> None:
    """One stall of 0.3 s, one worker: nearly all that was meant to be sent meanwhile waits for it."""
    calls = iter(range(10_000))
    address = serve(lambda: 0.3 if next(calls) == 20 else 0.0, threads=1)
    with connect(address) as channel:
        found = run_open_loop(OpenPlan(rate=200.0, seconds=1.0, seed=3), forever(), channel)
    assert not found.errors
    assert found.answered == pytest.approx(200, abs=50)
    slow = np.count_nonzero(found.latencies > 50)
    assert slow > 30, "a closed loop would have seen one slow request"
    assert found.intended == 200.0
    assert found.stages[:, 2].tolist() == [3.0] * found.answered


def test_a_closed_window_keeps_its_number_in_flight(serve: Callable[..., str]) -> None:
    address = serve(lambda: 0.02)
    with connect(address) as channel:
        found = run_closed_window(channel, forever(), in_flight=4, seconds=0.5)
    assert found.at(50) >= 20
    assert found.throughput <= 4 / 0.02
    assert found.throughput > 60


def test_windows_merge_side_by_side_and_one_after_another() -> None:
    first, second = window([1, 2], 2.0, errors={"A": 1}, intended=5.0), window([3], 1.0, errors={"A": 2, "B": 1})
    both = side_by_side([first, second])
    assert (both.answered, both.seconds, both.errors, both.intended) == (3, 2.0, {"A": 3, "B": 1}, 5.0)
    queue = one_after_another([first, second])
    assert (queue.seconds, queue.throughput) == (3.0, 1.0)
    assert queue.goodput(2.0) == pytest.approx(2 / 3)
    assert window([]).at(99) == float("inf")


def test_stable_is_three_windows_within_a_tenth() -> None:
    steady, other = window([1.0] * 100), window([1.0] * 130)
    assert is_stable([other, steady, steady, steady])
    assert not is_stable([steady, steady])
    assert not is_stable([steady, steady, other])
    assert not is_stable([steady, steady, window([1.0] * 98 + [9.0] * 2)]), "the same throughput with another tail"
    assert not is_stable([window([])] * 3)
    ran: list[Asking] = []

    def run(asking: Asking) -> Window:
        ran.append(asking)
        return other if len(ran) < 4 else steady

    found = run_until_stable(run, Asking(2.0, in_flight=1), most=10)
    assert found.is_stable
    assert [asking.seconds for asking in ran[:2]] == [1.0, 2.0]
    assert len({asking.seed for asking in ran}) == len(ran)
    assert found.window.answered == 300
    growing = iter(range(100, 10_000, 100))
    unstable = run_until_stable(lambda _: window([1.0] * next(growing)), ran[0], most=4)
    assert (unstable.is_stable, len(unstable.windows)) == (False, 4)


@pytest.mark.parametrize("capacity", [3.0, 77.0, 900.0])
def test_the_search_finds_the_rate_that_a_server_can_bear(capacity: float) -> None:
    def run(asking: Asking) -> Window:
        assert asking.rate is not None
        latency = 1.0 if asking.rate <= capacity else 50.0
        return window([latency] * int(asking.rate * 10), 10.0, intended=asking.rate)

    found = find_rate(run, 1.0, limit=10.0)
    assert 0.94 * capacity <= found <= capacity
    assert find_rate(lambda asking: window([99.0], 1.0, intended=asking.rate), 1.0, limit=10.0) == 0.0
    assert not keeps_up(window([1.0] * 10, 1.0, intended=20.0), 10.0), "half of what was meant was answered"
    assert not keeps_up(window([1.0] * 20, 1.0, intended=20.0, errors={"UNAVAILABLE": 1}), 10.0)


def test_two_servers_are_asked_in_turn_and_change_places() -> None:
    order: list[str] = []

    def runner(name: str, latency: float) -> Callable[[Asking], Window]:
        def run(_: Asking) -> Window:
            order.append(name)
            return window([latency] * 10)

        return run

    found = compare(runner("a", 1.0), runner("b", 3.0), Asking(1.0, in_flight=1), rounds=3)
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert found.ratios(lambda each: each.at(50)) == [3.0, 3.0, 3.0]


def test_the_percentile_file_is_hdrhistograms() -> None:
    latencies = np.arange(1, 1001) / 10
    text = hgrm(window(latencies.tolist())).decode().splitlines()
    assert text[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [line.split() for line in text[2:-2]]
    values, shares, counts = (np.array([float(row[column]) for row in rows]) for column in (0, 1, 2))
    assert (np.diff(values) >= 0).all()
    assert (np.diff(shares) > 0).all()
    assert (values[-1], shares[-1], counts[-1]) == (100.0, 1.0, 1000)
    np.testing.assert_allclose(values, np.maximum(np.ceil(shares * 1000), 1) / 10, atol=0.0501)
    assert "Total count    =         1000" in text[-1]
    assert hgrm_shares(1) == [0.0, 1.0]


def test_a_dead_server_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(LoadTestError, match="no server answered"),
        Generator("127.0.0.1:9", None, Workload(), users=["ann"]),
    ):
        pass


def test_numbers_name_what_failed_and_what_kept_the_limit() -> None:
    numbers = describe(window([1.0, 20.0], 2.0, errors={"UNAVAILABLE": 3}, intended=4.0), slo_ms=10.0)
    assert (numbers["answers_per_second"], numbers["goodput_per_second"], numbers["errors"]) == (
        1.0,
        0.5,
        {"UNAVAILABLE": 3},
    )
    assert describe(window([]))["p99_ms"] is None


@pytest.mark.timeout(120)
def test_the_command_against_a_real_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    users = tmp_path / "users"
    users.write_text("user-1\nuser-2\nuser-3\n")
    common = ["--users-file", str(users), "--seconds", "0.3", "--windows", "3"]
    with serving(tmp_path, "--fake", "--drain-wait", "0") as server:
        base = ["bench", "--target", server.address, *common]
        assert lowpass.main([*base, "--rate", "60", "--processes", "2", "--slo-ms", "500", "--json"]) == 0
        result = json.loads(capsys.readouterr().out)
        (numbers,) = result["targets"].values()
        assert numbers["errors"] == {}
        assert numbers["intended_per_second"] == pytest.approx(60)
        assert 20 < numbers["answers_per_second"] < 120
        assert numbers["goodput_per_second"] <= numbers["answers_per_second"]
        out = tmp_path / "bench"
        assert lowpass.main([*base, "--in-flight", "2", "--compare", server.address, "--out", str(out)]) == 0
        assert "second / first" in capsys.readouterr().out
        assert {path.name for path in out.iterdir()} == {"bench.json", "bench.hgrm", "bench-2.hgrm", "bench.png"}
        assert lowpass.main([*base, "--find-rate", "--slo-ms", "0.0001"]) == 2
        assert "not even one request a second" in capsys.readouterr().err
        for wrong in (["--rate", "5", "--in-flight", "2"], ["--find-rate"], ["--bundle", str(tmp_path)]):
            assert lowpass.main([*base, *wrong]) == 2
