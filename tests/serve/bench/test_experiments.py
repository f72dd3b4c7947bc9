from __future__ import annotations

from collections.abc import Callable

import pytest

from serve.bench.experiments import find_rate, is_stable, keeps_up, run_in_pairs, run_until_stable
from serve.bench.load import Asking
from serve.bench.windows import Window
from tests.serve.bench.toy_windows import window


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

    found = run_in_pairs(runner("a", 1.0), runner("b", 3.0), Asking(1.0, in_flight=1), rounds=3)
    assert order == ["a", "b", "a", "b", "b", "a", "a", "b"]
    assert found.ratios(lambda each: each.at(50)) == [3.0, 3.0, 3.0]
