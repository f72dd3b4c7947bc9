from __future__ import annotations

from pathlib import Path

import pytest

from export.bundle import find_bundle
from jobs.gate.answering import measure_answers
from serve.answers.recommender import Recommender
from serve.answers.types import Answers, Query


def test_answers_are_timed_and_held_against_exact_search(finished_job: Path) -> None:
    found = measure_answers(find_bundle("toy", finished_job / "models"), "toy", asked=40)
    assert (found.recall, found.users) == (1.0, 40)
    assert 0 < found.p50_ms <= found.p99_ms


def test_an_index_that_misses_half_is_seen(finished_job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recommend = Recommender.recommend

    def forgetful(self: Recommender, queries: list[Query]) -> Answers:
        answers = recommend(self, queries)
        for query, outcome in zip(queries, answers.outcomes, strict=True):
            if not query.exact and not isinstance(outcome, Exception):
                outcome.item_ids = outcome.item_ids[::2]
        return answers

    monkeypatch.setattr(Recommender, "recommend", forgetful)
    found = measure_answers(find_bundle("toy", finished_job / "models"), "toy", asked=40)
    assert 0.4 < found.recall < 0.6
