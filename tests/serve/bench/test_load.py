from __future__ import annotations

import itertools
import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from serve.bench.errors import BenchError
from serve.bench.load import (
    Asking,
    Generator,
    connect,
    poisson_arrivals,
    run_closed_loop,
    run_open_loop,
    run_window,
)
from serve.bench.workload import Workload
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from tests.serve.bench.stub import slow_server

DELAY = 0.01


def payloads(*users: str) -> Iterator[bytes]:
    return (pb.RecommendRequest(user_id=user).SerializeToString() for user in itertools.cycle(users))


def test_arrivals_are_a_poisson_process() -> None:
    moments = np.array(poisson_arrivals(500.0, 40.0, np.random.default_rng(0)))
    assert (np.diff(moments) > 0).all()
    assert moments[-1] < 40
    assert len(moments) == pytest.approx(20_000, rel=0.03)
    gaps = np.diff(moments)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05), "exponential gaps have a deviation equal to their mean"


def test_an_open_loop_counts_the_wait_that_a_stall_causes() -> None:
    """One stall of 0.3 s, one worker: nearly all that was meant to be sent meanwhile waits for it."""
    calls = iter(range(10_000))
    with slow_server(lambda: 0.3 if next(calls) == 20 else 0.0, threads=1) as (_, address), connect(address) as channel:
        found = run_open_loop(channel, payloads("ann"), rate=200.0, seconds=1.0, seed=3)
    assert not found.errors
    assert found.answered == pytest.approx(200, abs=50)
    slow = np.count_nonzero(found.latencies > 50)
    assert slow > 30, "a closed loop would have seen one slow request"
    assert found.intended == 200.0
    assert found.stages[:, 2].tolist() == [3.0] * found.answered


@pytest.mark.parametrize("in_flight", [1, 4])
def test_a_closed_loop_keeps_its_number_in_flight(in_flight: int) -> None:
    with slow_server(lambda: DELAY) as (service, address), connect(address) as channel:
        found = run_closed_loop(channel, payloads("u"), in_flight=in_flight, seconds=0.3)
    assert found.answered == len(found.stages) == service.answered
    assert found.latencies.min() >= DELAY * 1e3
    assert found.at(50) >= DELAY * 1e3
    assert service.most_at_once == in_flight
    assert found.seconds >= found.answered * DELAY / in_flight
    assert found.throughput <= in_flight / DELAY
    assert found.throughput > 0.3 * in_flight / DELAY
    assert found.errors == {}
    assert found.late.max() == 0


def test_failures_are_counted_and_have_no_latency() -> None:
    with slow_server(lambda: 0.0) as (_, address), connect(address) as channel:
        found = run_closed_loop(channel, payloads("u", "bad"), in_flight=1, seconds=0.1)
    assert set(found.errors) == {"NOT_FOUND"}
    assert found.answered - found.errors["NOT_FOUND"] in {0, 1}, "one caller asks for both in turn"


def test_a_process_without_a_share_of_the_callers_asks_nothing() -> None:
    with slow_server(lambda: 0.0) as (service, address), connect(address) as channel:
        assert run_window(channel, payloads("u"), Asking(0.1, in_flight=0)) is None
    assert service.answered == 0


def test_several_processes_ask_as_one() -> None:
    with (
        slow_server(lambda: DELAY) as (service, address),
        Generator(address, None, Workload(), processes=2, users=["ann", "bob"]) as generator,
    ):
        found = generator.run(Asking(0.2, in_flight=3))
        assert service.most_at_once == 3
        assert found.answered == service.answered
        assert found.intended is None
        assert generator.run(Asking(0.2, rate=40.0)).intended == 40.0


def test_no_server() -> None:
    with pytest.raises(BenchError, match="no server answered"):
        connect("127.0.0.1:1", timeout=0.3)


@pytest.mark.parametrize("bundle", [False, True], ids=["a dead server", "no bundle"])
def test_what_keeps_a_process_from_asking_is_told_and_ends_it(tmp_path: Path, bundle: bool) -> None:
    generator = Generator(
        "127.0.0.1:9", tmp_path if bundle else None, Workload(), users=() if bundle else ["ann"], connect_within=0.3
    )
    with pytest.raises(BenchError, match=r"manifest\.json" if bundle else "no server answered"), generator:
        pass
    assert not multiprocessing.active_children()
