from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from export.build import index_choice
from export.build.ann import Vectors, build_index
from export.build.index_candidates import IndexCandidate, list_candidates
from export.build.index_choice import _Contest, choices_by_bytes, choose_index, climb, extrapolate, mark_pareto
from export.build.questions import Latency, draw_questions, measure_recall
from export.bundle.errors import ExportError
from export.bundle.manifest import IndexCard


def vectors(count: int, seed: int, dim: int = 8) -> Vectors:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def nothing(users: int, items: int) -> sp.csr_matrix:
    return sp.csr_matrix((users, items), dtype=np.float32)


def choose(items: Vectors, users: Vectors, ann_recall: float, **options: Any) -> tuple[Any, IndexCard]:
    return choose_index(items, users, nothing(len(users), len(items)), ann_recall, np.random.default_rng(0), **options)


@pytest.fixture(scope="module")
def chosen() -> tuple[Any, IndexCard]:
    return choose(vectors(5000, 0), vectors(40, 1), 0.9)


def test_the_choice_is_the_smallest_of_the_quick_that_reach_the_recall(chosen: tuple[Any, IndexCard]) -> None:
    index, card = chosen
    good = [row for row in card.candidates if row["ann_recall"] >= 0.9]
    quickest = min(float(row["median_us"]) for row in good)
    best = min(
        (row for row in good if row["median_us"] <= 1.1 * quickest), key=lambda row: float(row["bytes_per_item"])
    )
    assert (best["factory"], best["search"], best["ann_recall"]) == (card.factory, card.search, card.ann_recall)
    assert (index.ntotal, index.d, card.ann_recall_k) == (5000, 8, 20)


def test_every_kind_is_tried_and_described(chosen: tuple[Any, IndexCard]) -> None:
    rows = chosen[1].candidates
    factories = {row["factory"] for row in rows}
    assert {"Flat", "SQ8", "SQfp16", "PQ4x4fs", "PQ8x4fs", "HNSW16", "HNSW32", "HNSW16_SQ8"} < factories
    assert {factory.partition(",")[2] for factory in factories} >= {"Flat", "SQ8", "PQ4x4fs", "PQ8x4fs"}
    assert all(
        {"median_us", "p99_us", "bytes_per_item", "code_bytes", "build_seconds", "pareto"} < set(row) for row in rows
    )
    assert all(0 < row["median_us"] <= row["p99_us"] for row in rows)
    assert next(row["bytes_per_item"] for row in rows if row["factory"] == "Flat") == pytest.approx(32, abs=0.1)


def test_a_ladder_is_climbed_no_further_than_needed(chosen: tuple[Any, IndexCard]) -> None:
    for factory in ("SQ8", "PQ8x4fs", "HNSW32"):
        recalls = [row["ann_recall"] for row in chosen[1].candidates if row["factory"] == factory]
        assert all(recall < 0.9 for recall in recalls[:-1])


def test_what_the_card_says_is_what_the_index_finds() -> None:
    items, users = vectors(500, 0), vectors(50, 1)
    index, card = choose(items, users, 0.0)
    questions = draw_questions(users, nothing(50, 500), np.random.default_rng(0))
    found, _ = questions.answer(index, card.search, items)
    assert card.ann_recall == pytest.approx(measure_recall(found, questions.answer_exactly(items)), abs=1e-6)


def test_an_unreachable_recall_leaves_exact_search() -> None:
    # The longest vectors hide the others from a graph built on inner products.
    items = vectors(500, 0) * np.random.default_rng(2).gamma(0.3, size=(500, 1)).astype(np.float32)
    _, card = choose(items, vectors(50, 1), 1.0)
    assert card.ann_recall >= 1.0 - 1e-9


def test_a_catalogue_shorter_than_the_list() -> None:
    _, card = choose(vectors(3, 0), vectors(5, 1), 0.99)
    assert card.ann_recall_k == 3
    assert card.ann_recall == 1.0


def test_a_bound_on_the_bytes_is_kept() -> None:
    _, card = choose(vectors(3000, 0), vectors(40, 1), 0.9, max_bytes_per_item=20)
    chosen = next(row for row in card.candidates if (row["factory"], row["search"]) == (card.factory, card.search))
    assert chosen["bytes_per_item"] <= 20
    # The row that scores the found is read as well.
    assert card.bytes_per_item == {"SQ8": 8, "SQfp16": 16, "PQ4x4fs": 2, "PQ8x4fs": 4}[card.factory] + 32


def test_a_bound_that_no_index_keeps() -> None:
    with pytest.raises(ExportError, match=r"max_index_bytes_per_item 1: .* takes"):
        choose(vectors(300, 0), vectors(40, 1), 0.9, max_bytes_per_item=1)


def skipped(card: IndexCard) -> dict[str, str]:
    return {row["factory"]: row["skipped"] for row in card.candidates if "skipped" in row}


def with_trials(
    monkeypatch: pytest.MonkeyPatch, whole: tuple[float, float], *trials: tuple[float, float], **options: Any
) -> dict[str, str]:
    """Which graphs are skipped, and why, where all and samples of the items show these recalls and microseconds."""
    shown = {1000: whole, 100: trials[0], 400: trials[-1]}

    def climb(index: Any, candidate: IndexCandidate, stored: Vectors, *_: object, **__: object) -> list[dict[str, Any]]:
        recall, median_us = shown[len(stored)]
        return [{"factory": candidate.factory, "search": {}, "ann_recall": recall, "median_us": median_us}]

    monkeypatch.setattr(index_choice, "TRIAL_ITEMS", 400)
    monkeypatch.setattr(index_choice, "climb", climb)
    return skipped(choose(vectors(1000, 0), vectors(40, 1), 0.9, **options)[1])


GRAPHS = {"HNSW16", "HNSW32", "HNSW16_SQ8"}


def test_a_graph_that_finds_too_little_of_a_sample_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = with_trials(monkeypatch, (0.95, 9.0), (0.5, 1.0))
    assert reasons == dict.fromkeys(GRAPHS, "finds 50.0% even of 100 items")
    reasons = with_trials(monkeypatch, (0.95, 9.0), (0.95, 1.0), (0.5, 1.0))
    assert reasons == dict.fromkeys(GRAPHS, "finds 50.0% even of 400 items")


def test_a_graph_that_is_slow_on_a_sample_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = with_trials(monkeypatch, (0.95, 9.0), (0.95, 10.0))
    assert reasons == dict.fromkeys(GRAPHS, "takes 10 µs even over 100 items")
    reasons = with_trials(monkeypatch, (0.95, 9.0), (0.95, 1.0), (0.95, 10.0))
    assert reasons == dict.fromkeys(GRAPHS, "takes 10 µs even over 400 items")


def test_a_graph_that_would_take_too_long_is_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_choice, "extrapolate", lambda *_: 1234.0)
    reasons = with_trials(monkeypatch, (0.95, 9.0), (0.95, 1.0))
    assert set(reasons) == GRAPHS
    assert all(reason.startswith("would take 1234 s to build, and ") for reason in reasons.values())


def test_the_time_of_a_graph_grows_as_the_trials_tell() -> None:
    assert extrapolate(1.0, 4.0, 20.0) == pytest.approx(80.0)
    assert extrapolate(1.0, 8.0, 4.0) == pytest.approx(64.0)
    assert extrapolate(1.0, 2.0, 10.0) == pytest.approx(20.0), "never less than in proportion"


def test_a_graph_that_takes_longer_than_was_guessed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(factory: str, items: Vectors, *, seconds: float | None = None, **options: Any) -> Any:
        if seconds is not None:
            assert 0 < seconds <= 600
            raise TimeoutError("after 9 s with 400 of 1,000 items")
        return build_index(factory, items, **options)

    monkeypatch.setattr(index_choice, "build_index", build)
    reasons = with_trials(monkeypatch, (0.95, 9.0), (0.95, 1.0))
    assert reasons == dict.fromkeys(GRAPHS, "given up after 9 s with 400 of 1,000 items")


def test_without_time_exact_search_is_left() -> None:
    _, card = choose(vectors(5000, 0), vectors(40, 1), 0.9, budget=0.0)
    assert card.factory == "Flat"
    reasons = skipped(card)
    assert set(reasons.values()) == {"the 0 s for the choice were over"}
    assert {"SQ8", "HNSW32"} < set(reasons)
    assert all(("pareto" in row) != ("skipped" in row) for row in card.candidates)


def test_what_is_asked_no_further_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    contest = _Contest(
        vectors(300, 0), vectors(300, 0), draw_questions(vectors(40, 1), nothing(40, 300), np.random.default_rng(0)),
        1.01, None, None, 600.0,
    )  # fmt: skip
    contest.enter(IndexCandidate("Flat"))
    ladder = tuple({"efSearch": ef} for ef in (1, 2, 4))
    monkeypatch.setattr(_Contest, "_reason_against", lambda *_: None)
    contest.budget = 0.0
    contest.enter(IndexCandidate("HNSW16", (ladder,)))
    assert [row["search"] for row in contest.rows] == [{}, {"efSearch": 1}, {}]
    assert contest.rows[-1]["skipped"] == "asked no further: the 0 s for the choice were over"


def test_lists_that_would_take_too_long_are_not_clustered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_choice, "CLUSTERING_ROUNDS", 10**12)
    reasons = skipped(choose(vectors(5000, 0), vectors(40, 1), 0.9)[1])
    lists = {factory: reason for factory, reason in reasons.items() if factory.startswith("IVF")}
    assert len(lists) == 4
    assert all("s to cluster" in reason for reason in lists.values())


def test_codes_are_not_asked_in_fewer_lists_than_vectors_need(chosen: tuple[Any, IndexCard]) -> None:
    probes: dict[str, list[int]] = {}
    for row in chosen[1].candidates:
        if row["factory"].startswith("IVF"):
            probes.setdefault(row["factory"], []).append(row["search"]["nprobe"])
    assert len(probes) == 4
    needed = max(next(found for factory, found in probes.items() if factory.endswith(",Flat")))
    assert all(min(found) >= needed for factory, found in probes.items() if not factory.endswith(",Flat"))


NO_INDEX: Any = None


class Scripted:
    """Finds what the script says of a setting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, recall: Callable[[dict[str, int]], float]) -> None:
        self.asked: list[dict[str, int]] = []
        monkeypatch.setattr(index_choice, "measure_recall", lambda found, _: recall(found))

    def answer(self, _: object, search: dict[str, int], __: object) -> Any:
        self.asked.append(search)
        return search, Latency(1.0, 1.0)


def test_a_ladder_that_gains_nothing_is_left_for_one_of_more_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {4: 0.941, 16: 0.985, 64: 0.993}
    script: Any = Scripted(monkeypatch, lambda search: min(found[search["k_factor"]], 1 - 0.5 / search["nprobe"]))
    candidate = next(each for each in list_candidates(10**6, 20) if each.factory == "IVF4096,PQ20x4fs")
    rows = climb(NO_INDEX, candidate, np.zeros((1, 1), np.float32), script, [], 0.99)
    assert [(row["search"]["k_factor"], row["search"]["nprobe"]) for row in rows] == [
        *[(4, 2**power) for power in range(1, 7)],
        *[(16, 16), (16, 32), (16, 64), (16, 128)],
        *[(64, 32), (64, 64)],
    ]  # fmt: skip
    assert rows[-1]["ann_recall"] >= 0.99


def test_more_candidates_are_not_tried_where_they_find_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    script: Any = Scripted(monkeypatch, lambda search: 0.5)
    ladders = tuple(tuple({"nprobe": probe, "k_factor": factor} for probe in (2, 4, 8, 16)) for factor in (4, 16, 64))
    climb(NO_INDEX, IndexCandidate("IVF64,PQ4x4fs", ladders), np.zeros((1, 1), np.float32), script, [], 0.9)
    assert [tuple(search.values()) for search in script.asked] == [(2, 4), (4, 4), (8, 4), (2, 16), (4, 16), (8, 16)]


def test_no_setting_is_tried_that_is_not_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    script: Any = Scripted(monkeypatch, lambda search: search["efSearch"] / 1000)
    candidate = IndexCandidate("HNSW16", (tuple({"efSearch": ef} for ef in (32, 64, 128)),))
    climb(NO_INDEX, candidate, np.zeros((1, 1), np.float32), script, [], 0.9, allowed=lambda: False)
    assert script.asked == [{"efSearch": 32}]


def test_a_graph_that_may_win_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_trials(monkeypatch, (0.95, 9.0), (0.95, 8.0)) == {}


def test_pareto_rows_are_those_that_nothing_beats() -> None:
    def row(recall: float, microseconds: float, size: float) -> dict[str, Any]:
        return {"ann_recall": recall, "median_us": microseconds, "bytes_per_item": size}

    rows = [row(1, 9, 80), row(0.9, 3, 80), row(0.9, 4, 80), {"skipped": "slow"}, row(0.5, 9, 4), row(1, 9, 80)]
    assert [each.get("pareto") for each in mark_pareto(rows)] == [True, True, False, None, True, True]


def test_the_choices_by_bytes_are_what_a_bound_would_have_chosen(chosen: tuple[Any, IndexCard]) -> None:
    card = chosen[1]
    choices = choices_by_bytes(card, 0.9)
    assert (card.factory, card.search) in [(row["factory"], row["search"]) for row in choices]
    assert len({row["factory"] for row in choices}) == len(choices)
    good = [row for row in card.candidates if row["ann_recall"] >= 0.9]
    for row in choices:
        within = [other for other in good if other["bytes_per_item"] <= row["bytes_per_item"]]
        assert row["median_us"] == min(other["median_us"] for other in within)
    assert all(any(row is choice for row in card.candidates) for choice in choices)


def test_the_smallest_search_setting_that_finds_enough_is_the_last_on_its_ladder() -> None:
    items, users = vectors(500, 0), vectors(50, 1)
    questions = draw_questions(users, nothing(50, 500), np.random.default_rng(0))
    index: Any = build_index("HNSW16", items)
    exact = questions.answer_exactly(items)
    candidate = IndexCandidate("HNSW16", (({"efSearch": 32}, {"efSearch": 64}),))
    (row,) = climb(index, candidate, items, questions, exact, 0.5)
    assert row["search"] == {"efSearch": 32}
    assert index.hnsw.efSearch == 32, "it is set"
    found = questions.answer(index, row["search"], items)[0]
    assert row["ann_recall"] == pytest.approx(measure_recall(found, exact), abs=1e-6)
    assert len(climb(index, candidate, items, questions, exact, 1.01)) == 2, "no setting finds more than all"
