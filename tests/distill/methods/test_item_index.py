"""Inverted lists: what they find is scored exactly, masked, complete, and as good as was measured."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import distill.methods.item_index
from distill.methods.candidates import find_ranks, rank_unseen
from distill.methods.item_index import RECALL, ItemIndex, build_index

K = 30


@pytest.fixture
def items(rng: np.random.Generator) -> torch.Tensor:
    centres = rng.normal(size=(40, 12))
    return torch.from_numpy((centres[rng.integers(0, 40, 3000)] + 0.3 * rng.normal(size=(3000, 12))).astype(np.float16))


@pytest.fixture
def users(rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.normal(size=(500, 12)).astype(np.float32))


@pytest.fixture
def hidden(rng: np.random.Generator) -> sp.csr_matrix:
    taken = (rng.random((500, 3000)) < 0.01).astype(np.float32)
    taken[3, 20:] = 1
    taken[4] = 1
    return sp.csr_matrix(taken)


@pytest.fixture
def index(items: torch.Tensor, users: torch.Tensor) -> ItemIndex:
    return build_index(items, users, K)


def exact(users: torch.Tensor, items: torch.Tensor, hidden: sp.csr_matrix) -> torch.Tensor:
    scores = users @ items.float().T
    scores[hidden.nonzero()] = -torch.inf
    return scores


def test_it_finds_as_much_as_it_says_and_looks_into_a_part(
    index: ItemIndex, items: torch.Tensor, users: torch.Tensor, hidden: sp.csr_matrix
) -> None:
    assert RECALL <= index.recall < 1
    assert index.share < 0.6
    found, _ = index.search(users, hidden, K)
    wanted = exact(users, items, hidden).topk(K).indices.numpy()
    ordinary = [user for user in range(500) if user not in (3, 4)]
    recall = np.mean([len({*found[user]} & {*wanted[user]}) / K for user in ordinary])
    assert recall == pytest.approx(index.recall, abs=0.02)


def test_scores_are_exact_falling_and_of_different_items_that_are_not_hidden(
    index: ItemIndex, items: torch.Tensor, users: torch.Tensor, hidden: sp.csr_matrix
) -> None:
    found, scores = index.search(users, hidden, K)
    wanted = exact(users, items, hidden).gather(1, torch.from_numpy(found).long()).numpy()
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-5)
    assert (scores[:, 1:] <= scores[:, :-1]).all()
    assert all(len({*row}) == K for row in found)
    assert np.isfinite(scores[[0, 1, 2]]).all()


def test_whoever_has_little_left_gets_all_of_it_first(
    index: ItemIndex, items: torch.Tensor, users: torch.Tensor, hidden: sp.csr_matrix
) -> None:
    found, scores = index.search(users[:5], hidden[:5], K)
    best = exact(users[3:4], items, hidden[3]).topk(20).indices.numpy()[0]
    np.testing.assert_array_equal(found[3, :20], best)
    np.testing.assert_array_equal(np.isfinite(scores[3]), np.arange(K) < 20)
    assert not np.isfinite(scores[4]).any()


def test_a_user_without_a_direction_gets_the_given_order(
    index: ItemIndex, users: torch.Tensor, hidden: sp.csr_matrix
) -> None:
    users[1] = 0
    order = np.arange(2999, -1, -1)
    found, _ = index.search(users[:2], hidden[:2], K, unknown=order)
    left = np.setdiff1d(order, hidden[1].indices)[::-1]
    np.testing.assert_array_equal(found[1], left[:K])


def test_thinning_changes_nothing(
    index: ItemIndex, users: torch.Tensor, hidden: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = index.search(users, hidden, K)
    monkeypatch.setattr(distill.methods.item_index, "FOUND", 1000)
    thinned = index.search(users, hidden, K)
    np.testing.assert_array_equal(whole[0], thinned[0])
    np.testing.assert_array_equal(whole[1], thinned[1])


def test_equal_input_has_equal_lists_and_equal_items_do_no_harm(users: torch.Tensor, hidden: sp.csr_matrix) -> None:
    flat = torch.zeros(3000, 12)
    flat[:50] = torch.randn(50, 12, generator=torch.Generator().manual_seed(0))
    first, second = (build_index(flat, users, K).search(users, hidden, K) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert all(len({*row}) == K for row in first[0])


def test_ranking_asks_an_index_where_it_is_told_to(
    items: torch.Tensor, users: torch.Tensor, hidden: sp.csr_matrix
) -> None:
    found = rank_unseen(users, items.float(), hidden, K, whole=False)
    wanted = rank_unseen(users, items.float(), hidden, K)
    assert found.dtype == np.int32
    recall = np.mean([len({*a} & {*b}) / K for a, b in zip(found[5:], wanted[5:], strict=True)])
    assert RECALL - 0.02 < recall < 1


def test_ranks_are_found_by_sorting_as_by_a_table(rng: np.random.Generator) -> None:
    lists = np.stack([rng.permutation(5000)[:20] for _ in range(7)]).astype(np.int32)
    wanted = rng.integers(0, 5000, (7, 30)).astype(np.int32)
    wanted[:, :5] = lists[:, [3, 0, 19, 7, 7]]
    found = find_ranks(lists, wanted, 5000)
    for row in range(7):
        positions = {item: rank for rank, item in enumerate(lists[row].tolist())}
        assert found[row].tolist() == [positions.get(item, 20) for item in wanted[row].tolist()]
