"""Twice as many questions as the server can answer: it goes on answering, and soon.

Where connections may carry no more than the server admits, HTTP/2 itself holds the rest back at the callers. Where they
may, each is refused by name, and what that costs is missing from the answers.

What was answered, how soon, and what was refused is the server's own count, read before and after the flood.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from export.bundle import Bundle
from serve.answers.limits import Limits
from tests.benchmarks.serving import servers
from tests.benchmarks.serving.h2load import CONNECTIONS, ask, flood
from tests.benchmarks.serving.server_counts import Seen, watching

ROUNDS, SECONDS, REQUESTS = 3, 6.0, 12_000
KEPT_GOODPUT, MAX_WAIT = 0.9, 1.0
IN_FLIGHT = 16
"""At the peak; below the bound of a connection, beyond which h2load gives up what a gRPC client would send again."""

pytestmark = pytest.mark.timeout(1800)


@dataclass
class Outcome:
    """What a flood of twice the peak left of it, median over the rounds.

    Attributes:
        kept: Answers a second over the peak.
        p99: Of what was answered, seconds.
    """

    kept: float
    p99: float


def flood_server(transport: str, streams: int, repository: Path, student: Bundle, folder: Path) -> Outcome:
    core, other = servers.two_cores()
    arguments = ("--repository", str(repository), "--model", "student", "--transport", transport)
    bounds = ("--max-wait", str(MAX_WAIT), "--max-concurrent-streams", str(streams))
    question = servers.question(servers.typical_user(student))
    shares, tails = [], []
    with servers.lowpass(folder / "server", core, *arguments, *bounds) as server:
        for _ in range(ROUNDS):
            peak = ask(server.address, servers.RECOMMEND, question, in_flight=IN_FLIGHT, requests=REQUESTS, core=other)
            rate = 2 * peak.per_second
            seen: list[Seen] = []
            with watching(server, seen):
                flood(server.address, servers.RECOMMEND, question, rate=rate, seconds=SECONDS, core=other)
            goodput = seen[0].codes["OK"] / SECONDS
            shares.append(goodput / peak.per_second)
            tails.append(seen[0].p99)
            click.echo(
                f"\n{transport}, {streams} streams a connection: peak {peak.per_second:,.0f}/s, at twice that"
                f" {goodput:,.0f}/s answered, p99 within {seen[0].p99 * 1e3:.0f} ms; {dict(seen[0].codes)}"
            )
    outcome = Outcome(statistics.median(shares), statistics.median(tails))
    click.echo(f"{transport}, {streams} streams a connection: goodput {outcome.kept:.2f} of the peak")
    return outcome


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_connections_that_carry_no_more_than_the_server_admits(
    transport: str, repository: Path, student: Bundle, tmp_path: Path
) -> None:
    streams = Limits().max_in_flight // CONNECTIONS
    outcome = flood_server(transport, streams, repository, student, tmp_path)
    assert outcome.kept >= KEPT_GOODPUT
    assert outcome.p99 <= MAX_WAIT


@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_each_refused_by_name(transport: str, repository: Path, student: Bundle, tmp_path: Path) -> None:
    """No bar for the goodput: to be refused, a request must be received, which is most of what grpcio costs."""
    outcome = flood_server(transport, 1024, repository, student, tmp_path)
    assert outcome.p99 <= MAX_WAIT
