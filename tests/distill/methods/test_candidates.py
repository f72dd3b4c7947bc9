from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

import distill.methods.candidates
from distill.methods.candidates import StudentRanking, UniformNegatives, find_ranks, gumbel_top_k, rank_unseen


def seen_matrix(pairs: list[tuple[int, int]], shape: tuple[int, int]) -> sp.csr_matrix:
    dense = np.zeros(shape, dtype=np.float32)
    for row, column in pairs:
        dense[row, column] = 1
    return sp.csr_matrix(dense)


def test_unseen_candidates_are_ranked_and_seen_ones_end_a_list_that_is_too_long() -> None:
    rows, candidates = torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    seen = seen_matrix([(0, 3), (1, 0), (1, 2)], (2, 4))
    assert rank_unseen(rows, candidates, seen, 2).tolist() == [[2, 1], [1, 3]]
    whole = rank_unseen(rows, candidates, seen, 9)
    assert whole.shape == (2, 4)
    assert whole[0].tolist() == [2, 1, 0, 3]
    assert whole[1, :2].tolist() == [1, 3]
    assert set(whole[1, 2:].tolist()) == {0, 2}


@pytest.mark.parametrize("chunk_bytes", [1, 2**20])
def test_positions_are_those_of_a_search(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, chunk_bytes: int
) -> None:
    monkeypatch.setattr(distill.methods.candidates, "CHUNK_BYTES", chunk_bytes)
    lists, wanted = (np.stack([rng.permutation(9)[:5] for _ in range(7)]).astype(np.int32) for _ in range(2))
    expected = [
        [row.tolist().index(item) if item in row else 5 for item in items]
        for row, items in zip(lists, wanted, strict=True)
    ]
    np.testing.assert_array_equal(find_ranks(lists, wanted, 9), expected)


@pytest.mark.parametrize("chunk_bytes", [2**12, 2**25])
def test_draws_without_replacement_follow_the_weights(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, chunk_bytes: int
) -> None:
    monkeypatch.setattr(distill.methods.candidates, "CHUNK_BYTES", chunk_bytes)
    weights, num_rows = np.array([5.0, 2.0, 1.0, 0.5]), 20_000
    drawn = gumbel_top_k(np.log(weights, dtype=np.float32)[None], num_rows, 2, rng)
    pairs = list(combinations(range(4), 2))
    expected = [
        sum(weights[a] / weights.sum() * weights[b] / (weights.sum() - weights[a]) for a, b in permutations(pair))
        for pair in pairs
    ]
    found = [int((drawn == pair).all(axis=1).sum()) for pair in pairs]
    assert sum(found) == num_rows, "positions rise"
    assert chisquare(found, num_rows * np.array(expected)).pvalue > 0.01


def test_every_row_has_its_own_weights_and_a_tiny_one_is_drawn_last(rng: np.random.Generator) -> None:
    log_weights = np.full((3, 4), -200.0, dtype=np.float32)
    log_weights[np.arange(3), [2, 0, 3]] = log_weights[np.arange(3), [3, 1, 1]] = 0
    assert gumbel_top_k(log_weights, 3, 2, rng).tolist() == [[2, 3], [0, 1], [1, 3]]
    assert gumbel_top_k(log_weights, 3, 4, rng).tolist() == [[0, 1, 2, 3]] * 3


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.integers(1, 6))
def test_the_remainder_is_what_is_neither_listed_nor_seen(seed: int, num_candidates: int, num_rows: int) -> None:
    rng = np.random.default_rng(seed)
    seen = rng.random((num_rows, num_candidates)) < 0.3
    length = int(rng.integers(1, num_candidates + 1))
    lists = np.stack([rng.permutation(num_candidates)[:length] for _ in range(num_rows)]).astype(np.int32)
    drawn = UniformNegatives(sp.csr_matrix(seen.astype(np.float32)), lists).draw(200, rng)
    for row in range(num_rows):
        left = set(range(num_candidates)) - set(np.flatnonzero(seen[row])) - set(lists[row].tolist())
        assert set(drawn[row].tolist()) <= (left or set(range(num_candidates)))


def test_the_remainder_is_drawn_uniformly(rng: np.random.Generator) -> None:
    seen = seen_matrix([(1, 0), (1, 7)], (3, 8))
    remainder = UniformNegatives(seen, np.array([[3, 1], [4, 7], [0, 1]], dtype=np.int32))
    drawn = remainder.draw(20_000, rng)
    for row, left in enumerate([[0, 2, 4, 5, 6, 7], [1, 2, 3, 5, 6], [2, 3, 4, 5, 6, 7]]):
        counts = np.bincount(drawn[row], minlength=8)
        assert counts[left].sum() == 20_000
        assert chisquare(counts[left]).pvalue > 0.01


SEEN = sp.csr_matrix((2, 4), dtype="float32")
ROWS, CANDIDATES = torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.0], [1.0], [2.0], [3.0]])


def test_lists_stay_until_they_are_due() -> None:
    ranking = StudentRanking(SEEN, 2, every=3)
    assert [ranking.begin_epoch(factor * ROWS, CANDIDATES) for factor in (1, -1, -1)] == [True, False, False]
    assert ranking.lists.tolist() == [[3, 2], [0, 1]]
    assert ranking.begin_epoch(-ROWS, CANDIDATES)
    assert ranking.lists.tolist() == [[0, 1], [3, 2]]


def test_a_restored_ranking_goes_on_where_the_other_was() -> None:
    ranking, restored = StudentRanking(SEEN, 2, every=2), StudentRanking(SEEN, 2, every=2)
    ranking.begin_epoch(ROWS, CANDIDATES)
    restored.load_state_dict(ranking.state_dict())
    for one in (ranking, restored):
        assert not one.begin_epoch(-ROWS, CANDIDATES)
        assert one.lists.tolist() == [[3, 2], [0, 1]]
        assert one.begin_epoch(-ROWS, CANDIDATES)
