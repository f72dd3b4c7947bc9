"""How a bundle answers on this machine, in this process, one caller at a time: what it finds, and how long it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from serve.answers.indexes.faiss_index import limit_native_threads
from serve.answers.recommender import Recommender
from serve.answers.types import Answers, Query
from serve.live.loader import load_model

K = 20
ASKED = 1000
"""Users who are asked for: ten answers are beyond p99."""
SEED = 0
WARM = 50


@dataclass(frozen=True)
class Answering:
    """How a bundle answers.

    Attributes:
        recall: Share of the exact top 20 of a user that its answers have, the user's seen items left out.
        p50_ms: Median of the time of an answer, ms.
        p99_ms: The same of all but one in a hundred.
        users: How many were asked for.
    """

    recall: float
    p50_ms: float
    p99_ms: float
    users: int


def measure_answers(bundle: Path, model: str, asked: int = ASKED) -> Answering:
    """Load a bundle as a server does, and ask it.

    Args:
        bundle: Its folder.
        model: Its name.
        asked: Users to ask for, drawn from all.

    Raises:
        BundleError: It does not open.
        UnusableBundle: It cannot answer.
    """
    limit_native_threads()
    recommender = load_model(model, bundle, verify=False).recommender
    ids = recommender.catalogue.user_ids
    rng = np.random.default_rng(SEED)
    users = ids.take(rng.choice(len(ids), min(asked, len(ids)), replace=False).tolist())
    for user in users[:WARM]:
        recommender.recommend([Query(user, k=K)])
    milliseconds, found, there = [], 0, 0
    for user in users:
        started = perf_counter()
        answer = recommender.recommend([Query(user, k=K)])
        milliseconds.append(1e3 * (perf_counter() - started))
        exact = _items(recommender, Query(user, k=K, exact=True))
        found += len(exact & _taken(answer))
        there += len(exact)
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return Answering(found / max(there, 1), float(p50), float(p99), len(users))


def _items(recommender: Recommender, query: Query) -> set[str]:
    return _taken(recommender.recommend([query]))


def _taken(answers: Answers) -> set[str]:
    (outcome,) = answers.outcomes
    if isinstance(outcome, Exception):
        raise outcome
    return set(outcome.item_ids)
