"""The rounds: every model served and asked in turn, several times over, and the medians of it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve.bench.children import run_load, serve_model
from serve.bench.contestants import Contestant
from serve.bench.cores import CorePlan

LEVELS = (1, 32)
"""Requests in flight: one caller who waits, and a busy server."""

CUTOFF = 20
"""Items an answer: the cutoff at which quality is reported."""

Round = dict[str, Any]


@dataclass(frozen=True)
class LoadOptions:
    """How the models are asked.

    Args:
        requests: Measured requests at each level in each round.
        rounds: How often each model is served and asked.
        users: "uniform" or "zipf"; see `serve.bench.workload.Workload`.
        seed: Of the draw of users; round r adds r.
    """

    requests: int = 3000
    rounds: int = 3
    users: str = "uniform"
    seed: int = 0


@dataclass(frozen=True)
class Measured:
    """A number measured in several rounds: the median of them, the least and the greatest."""

    median: float
    least: float
    greatest: float


def run_rounds(
    repository: Path,
    contestants: Sequence[Contestant],
    options: LoadOptions,
    cores: CorePlan,
    advance: Callable[[str], None],
) -> dict[str, list[Round]]:
    """Serve and ask every model once a round; every other round goes backwards, so that a drift hits all alike.

    Args:
        repository: Root of the model repository.
        contestants: Models to serve.
        options: How they are asked.
        cores: Who runs where.
        advance: Called with the model's name after each visit.

    Returns:
        By model, what each round saw: {"levels": {"1": load summary, …}, "memory": {"rss", "anonymous"}}.

    Raises:
        GainsError: A server or the load failed.
    """
    rounds: dict[str, list[Round]] = {contestant.name: [] for contestant in contestants}
    for number in range(options.rounds):
        order = contestants if number % 2 == 0 else list(reversed(contestants))
        for contestant in order:
            rounds[contestant.name].append(_visit(repository, contestant, options, cores, number))
            advance(contestant.name)
    return rounds


def _visit(repository: Path, contestant: Contestant, options: LoadOptions, cores: CorePlan, number: int) -> Round:
    asked = ["--requests", str(options.requests), "--warm-up", str(max(100, options.requests // 10)), "-k", str(CUTOFF)]
    asked += ["--users", options.users, "--seed", str(options.seed + number)]
    for level in LEVELS:
        asked += ["--in-flight", str(level)]
    with serve_model(repository, contestant.name, cores.server) as server:
        levels = run_load(server, contestant.path, asked, cores.load)
        return {"levels": {str(level["in_flight"]): level for level in levels}, "memory": server.memory()}


def across(rounds: Sequence[Round], read: Callable[[Round], float | None]) -> Measured | None:
    """Median and range of one number over the rounds; None where a round did not measure it.

    Args:
        rounds: Of one model.
        read: Takes the number out of a round.
    """
    values = [value for value in map(read, rounds) if value is not None]
    if not values or len(values) < len(rounds):
        return None
    return Measured(statistics.median(values), min(values), max(values))
