from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.errors import NotFiniteError
from distill.evaluation.metrics import Rows
from distill.evaluation.ranking import rank_alike, rank_items, rank_scores, top_scores
from distill.evaluation.selection import GROUP
from tests.distill.toy import build_interactions, build_random, random_embeddings


def test_rank_items_by_hand() -> None:
    data = build_interactions((2, 4), train=[(0, 0), (1, 3)])
    users = torch.tensor([[1.0], [-1.0]])
    items = torch.tensor([[9.0], [1.0], [5.0], [-7.0]])
    ranked = rank_items(users, items, data.train, np.array([1, 0]), 3)
    np.testing.assert_array_equal(ranked, [[1, 2, 0], [2, 1, 3]])


@st.composite
def problems(draw: st.DrawFn) -> tuple[torch.Tensor, sp.csr_matrix, int]:
    """Distinct scores, a mask and k, with catalogues on both sides of every change of method."""
    k = draw(st.integers(1, 4))
    near = draw(st.sampled_from([1, GROUP, k * GROUP, (k + 1) * GROUP, (k + 3) * GROUP]))
    num_items = max(k, near + draw(st.integers(-1, 1)))
    num_users = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scores = np.stack([rng.permutation(num_items) for _ in range(num_users)]).astype(np.float32)
    hidden = rng.random((num_users, num_items)) < draw(st.sampled_from([0.0, 0.5, 0.99, 1.0]))
    return torch.from_numpy(scores), sp.csr_matrix(hidden.astype(np.float32)), k


@given(problems())
def test_the_ranking_is_the_one_of_a_full_sort(problem: tuple[torch.Tensor, sp.csr_matrix, int]) -> None:
    scores, masked, k = problem
    num_users, num_items = scores.shape
    ranked = rank_scores(lambda rows: scores[torch.from_numpy(rows)], masked, np.arange(num_users), k)
    hidden = masked.toarray() > 0
    for row in range(num_users):
        open_items = np.flatnonzero(~hidden[row])
        expected = open_items[np.argsort(-scores[row, open_items].numpy())][:k]
        np.testing.assert_array_equal(ranked[row, : len(expected)], expected)
        filled = ranked[row, len(expected) :]
        assert hidden[row, filled].all()
        assert len(set(ranked[row].tolist())) == k
        assert ranked[row].max() < num_items


def test_equal_scores_go_to_the_lower_item_where_a_server_is_imitated(rng: np.random.Generator) -> None:
    scores = rng.integers(0, 4, size=(5, 1500)).astype(np.float32)
    scores[0] = 0
    scores[1, 700:] = 9
    ranked = rank_scores(lambda rows: scores[rows], sp.csr_matrix(scores.shape), np.arange(5), 10, ties="row")
    np.testing.assert_array_equal(ranked, np.argsort(-scores, axis=1, kind="stable")[:, :10])


def test_equal_scores_do_not_favour_the_first_rows_of_a_file() -> None:
    shape, k = (3, 1500), 100
    users, items = torch.zeros(3, 2), torch.ones(1500, 2)
    nothing = sp.csr_matrix(shape)
    ranked = [
        rank_items(users, items, nothing, np.arange(3), k),
        rank_scores(lambda rows: np.zeros((len(rows), 1500)), nothing, np.arange(3), k),
        top_scores(lambda rows: np.zeros((len(rows), 1500)), nothing, k)[0],
    ]
    for lists in ranked:
        assert abs(lists.mean() - 750) < 150, "the middle of the file, within three standard errors"
        assert [len(set(row)) for row in lists.tolist()] == [k] * 3


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(rng: np.random.Generator, bad: float) -> None:
    scores = rng.normal(size=(5, 1500)).astype(np.float32)
    masked = sp.csr_matrix((np.ones(5), (range(5), range(5))), shape=scores.shape)
    scores[range(5), range(5)] = bad
    rank_scores(lambda rows: scores[rows], masked, np.arange(5), 3)  # a masked one is not looked at
    scores[2] = bad
    with pytest.raises(NotFiniteError, match="scores of 1 of 5 users are not finite"):
        rank_scores(lambda rows: scores[rows], masked, np.arange(5), 3)
    with pytest.raises(NotFiniteError, match="scores of 5 of 5 users"):
        rank_items(torch.full((5, 1), 1e30), torch.full((9, 1), -1e30), sp.csr_matrix((5, 9)), np.arange(5), 3)


def test_a_user_with_everything_masked_is_no_fault() -> None:
    ranked = rank_scores(lambda rows: np.ones((len(rows), 4)), sp.csr_matrix(np.ones((1, 4))), np.arange(1), 2)
    assert ranked.shape == (1, 2)


def test_equal_inner_products_are_ranked_by_score_alone(rng: np.random.Generator) -> None:
    users = torch.from_numpy(rng.integers(0, 2, size=(5, 3)).astype(np.float32))
    items = torch.from_numpy(rng.integers(0, 3, size=(1500, 3)).astype(np.float32))
    scores = users @ items.T
    ranked = rank_items(users, items, sp.csr_matrix((5, 1500)), np.arange(5), 10)
    assert torch.equal(scores.gather(1, torch.from_numpy(ranked)), scores.topk(10, dim=1).values)
    assert all(len(set(row)) == 10 for row in ranked.tolist())


@pytest.mark.parametrize("chunk_bytes", [1, 4 * 25 * 7, 10**9])
def test_scores_of_any_kind_are_ranked_as_embeddings_are(rng: np.random.Generator, chunk_bytes: int) -> None:
    data = build_random(rng)
    users, items = random_embeddings(data, rng)
    rows = rng.permutation(data.num_users)[:11]

    def score_rows(wanted: Rows) -> np.ndarray:
        return (users[torch.from_numpy(wanted)] @ items.T).numpy().astype(np.float64)

    expected = rank_items(users, items, data.train, rows, 5)
    np.testing.assert_array_equal(rank_scores(score_rows, data.train, rows, 5, chunk_bytes=chunk_bytes), expected)
    np.testing.assert_array_equal(rank_items(users, items, data.train, rows, 5, chunk_bytes=chunk_bytes), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_embeddings_may_have_another_type_and_gradients(rng: np.random.Generator, dtype: torch.dtype) -> None:
    data = build_interactions((2, 300), train=[(0, 299), (1, 0)])
    users = torch.tensor([[1.0], [-1.0]], dtype=dtype, requires_grad=True)
    items = torch.arange(300, dtype=dtype)[:, None]
    ranked = rank_items(users, items, data.train, np.arange(2), 2)
    np.testing.assert_array_equal(ranked, [[298, 297], [1, 2]])


def test_nobody_to_rank_for() -> None:
    data = build_interactions((2, 4), train=[(0, 0)])
    ranked = rank_items(torch.ones(2, 1), torch.ones(4, 1), data.train, np.array([], dtype=np.int64), 3)
    assert ranked.shape == (0, 3)


@pytest.mark.parametrize("density", [0.0, 0.1, 0.9, 1.0])
def test_scores_that_all_users_share_are_ranked_as_any(rng: np.random.Generator, density: float) -> None:
    num_users, num_items = 9, 700
    counts = rng.integers(0, 9, size=num_items).astype(np.float32)
    hidden = rng.random((num_users, num_items)) < density
    hidden[2] = True
    hidden[2, 5:9] = False
    masked = sp.csr_matrix(hidden.astype(np.float32))
    users = rng.permutation(num_users)[:7]
    expected = rank_scores(lambda rows: np.tile(counts, (len(rows), 1)), masked, users, 8)
    np.testing.assert_array_equal(rank_alike(counts, masked, users, 8), expected)
