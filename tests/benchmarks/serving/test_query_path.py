"""The query path against a bare echo of the same answer, MLServer with the same index, and the teacher.

All servers run on one core and h2load on another; what is compared is asked in turn, round by round, with one user's
question over one connection. Ratios are medians over the rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import pytest

from export.bundle import Bundle
from tests.benchmarks.serving import servers
from tests.benchmarks.serving.h2load import Load, ask, median_of

ROUNDS, REQUESTS, SINGLY = 5, 12_000, 3_000
OF_ECHO, TIMES_MLSERVER, NATIVE_TIMES_MLSERVER, ABOVE_ECHO_US = 0.8, 4.0, 10.0, 60.0

pytestmark = pytest.mark.timeout(1800)


@dataclass
class Target:
    """Who is asked what."""

    address: str
    method: str
    message: bytes


@pytest.fixture(scope="module")
def targets(repository: Path, student: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    core, _ = servers.two_cores()
    folder = tmp_path_factory.mktemp("servers")
    user = servers.typical_user(student)
    with ExitStack() as stack:
        found: dict[str, Target] = {}
        for transport in ("grpcio", "native"):
            arguments = ("--repository", str(repository), "--model", "student", "--model", "teacher")
            server = stack.enter_context(
                servers.lowpass(folder / transport, core, *arguments, "--transport", transport)
            )
            for model in ("student", "teacher"):
                question = servers.question(user, model=model)
                found[f"{transport} {model}"] = Target(server.address, servers.RECOMMEND, question)
            question = servers.question(user)
            answer = servers.call_once(server.address, servers.RECOMMEND, question)
            address = stack.enter_context(servers.echo(folder, core, transport, answer))
            assert servers.call_once(address, servers.RECOMMEND, question) == answer
            found[f"{transport} echo"] = Target(address, servers.RECOMMEND, question)
        if servers.MLSERVER:
            address = stack.enter_context(servers.mlserver(folder / "mlserver", core, student.path))
            vector = np.ascontiguousarray(
                student.user_embeddings[int(student.user_ids.index_many([user])[0])], dtype="<f4"
            )
            inference = servers.inference_request(vector.tobytes(), len(vector))
            assert len(servers.call_once(address, servers.INFER, inference)) > 20
            found["mlserver"] = Target(address, servers.INFER, inference)
        yield found


def in_turn(targets: dict[str, Target], in_flight: int, requests: int) -> dict[str, list[Load]]:
    """Every target once a round."""
    _, core = servers.two_cores()
    loads: dict[str, list[Load]] = {name: [] for name in targets}
    for number in range(ROUNDS):
        names = list(targets) if number % 2 == 0 else list(targets)[::-1]
        for name in names:
            target = targets[name]
            load = ask(target.address, target.method, target.message, in_flight=in_flight, requests=requests, core=core)
            loads[name].append(load)
    return loads


def ratio(loads: dict[str, list[Load]], over: str, under: str, read: Callable[[Load], float]) -> float:
    return statistics.median(read(one) / read(two) for one, two in zip(loads[over], loads[under], strict=True))


def show(title: str, loads: dict[str, list[Load]]) -> None:
    click.echo(f"\n{title}")
    for name, rounds in loads.items():
        load = median_of(rounds)
        click.echo(
            f"  {name:<16} {load.per_second:>8,.0f} /s   p50 {load.p50_us:>8,.0f} µs   p99 {load.p99_us:>8,.0f} µs"
        )


def per_second(load: Load) -> float:
    return load.per_second


@pytest.fixture(scope="module")
def busy(targets: dict[str, Target], student: Bundle) -> dict[str, list[Load]]:
    index = student.manifest.index
    loads = in_turn(targets, 32, REQUESTS)
    show(f"32 in flight; CiteULike, d = 20, {index.factory} {index.search}, recall {index.ann_recall:.4f}", loads)
    return loads


@pytest.fixture(scope="module")
def quiet(targets: dict[str, Target]) -> dict[str, list[Load]]:
    loads = in_turn(targets, 1, SINGLY)
    show("1 in flight", loads)
    return loads


def test_index_finds_what_exact_search_finds(student: Bundle) -> None:
    assert student.manifest.index.ann_recall >= 0.99


def test_grpcio_answers_four_fifths_of_an_echo(busy: dict[str, list[Load]]) -> None:
    share = ratio(busy, "grpcio student", "grpcio echo", per_second)
    click.echo(f"\ngrpcio: {share:.2f} of its echo (bar {OF_ECHO})")
    assert share >= OF_ECHO


@pytest.mark.parametrize(("transport", "bar"), [("grpcio", TIMES_MLSERVER), ("native", NATIVE_TIMES_MLSERVER)])
def test_answers_of_mlserver(busy: dict[str, list[Load]], transport: str, bar: float) -> None:
    if "mlserver" not in busy:
        pytest.skip("no MLServer: see LOWPASS_MLSERVER_PYTHON in tests/benchmarks/serving/servers.py")
    times = ratio(busy, f"{transport} student", "mlserver", per_second)
    click.echo(f"\n{transport}: {times:.1f} times MLServer (bar {bar:g})")
    assert times >= bar


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_single_question_is_near_its_echo(quiet: dict[str, list[Load]], transport: str) -> None:
    pairs = zip(quiet[f"{transport} student"], quiet[f"{transport} echo"], strict=True)
    above = statistics.median(one.p50_us - two.p50_us for one, two in pairs)
    click.echo(f"\n{transport}: {above:.0f} µs above its echo at the median (bar {ABOVE_ECHO_US:g})")
    assert above <= ABOVE_ECHO_US


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_student_against_teacher(busy: dict[str, list[Load]], quiet: dict[str, list[Load]], transport: str) -> None:
    names = (f"{transport} student", f"{transport} teacher")
    throughput = ratio(busy, *names, per_second)
    tail = 1 / ratio(quiet, *names, lambda load: load.p99_us)
    click.echo(f"\n{transport}: {throughput:.2f} times the teacher's answers, its p99 {tail:.2f} times as long")
    assert throughput > 1.0
