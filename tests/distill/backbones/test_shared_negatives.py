from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.backbones.sampling import SharedNegativesSampler, taken_pairs
from distill.data.interactions import Interactions
from distill.errors import DataError
from tests.distill.toy import build_random


def test_every_interaction_comes_once_an_epoch_with_negatives_of_its_batch(checkerboard: Interactions) -> None:
    train = checkerboard.train
    sampler = SharedNegativesSampler(train, 50, 7)
    batches = list(sampler.epoch(np.random.default_rng(0)))
    assert len(batches) == sampler.num_batches == -(-train.nnz // 50)
    assert all(batch.negatives.shape == (7,) for batch in batches)
    pairs = torch.cat([torch.stack([batch.users, batch.positives]) for batch in batches], dim=1).numpy()
    rebuilt = sp.csr_matrix((np.ones(pairs.shape[1]), tuple(pairs)), shape=train.shape)
    assert (rebuilt != train).nnz == 0


def test_order_and_negatives_change_with_the_epoch_and_repeat_with_the_seed(checkerboard: Interactions) -> None:
    sampler = SharedNegativesSampler(checkerboard.train, 50, 7)
    one, again, other = (next(sampler.epoch(np.random.default_rng(seed))) for seed in (1, 1, 2))
    assert torch.equal(one.users, again.users)
    assert torch.equal(one.negatives, again.negatives)
    assert not torch.equal(one.users, other.users)
    assert not torch.equal(one.negatives, other.negatives)


def test_negatives_are_distinct_and_uniform_over_the_catalogue(checkerboard: Interactions) -> None:
    sampler = SharedNegativesSampler(checkerboard.train, 1, 6)
    drawn = np.stack(
        [batch.negatives.numpy() for seed in range(8) for batch in sampler.epoch(np.random.default_rng(seed))]
    )
    assert all(len(set(row)) == 6 for row in drawn)
    counts = np.bincount(drawn.ravel(), minlength=checkerboard.num_items)
    expected = drawn.size / checkerboard.num_items
    assert len(counts) == checkerboard.num_items
    assert abs(counts - expected).max() < 5 * expected**0.5


def test_more_negatives_than_items_are_the_whole_catalogue(checkerboard: Interactions) -> None:
    batch = next(SharedNegativesSampler(checkerboard.train, 5, 1000).epoch(np.random.default_rng(0)))
    assert sorted(batch.negatives.tolist()) == list(range(checkerboard.num_items))


@given(st.integers(0, 2**31))
def test_taken_pairs_are_those_of_the_dense_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    train = build_random(rng).train
    users, items = rng.integers(train.shape[0], size=11), rng.permutation(train.shape[1])[:8]
    found = sorted(zip(*(places.tolist() for places in taken_pairs(train, users, items)), strict=True))
    expected = np.argwhere(train.toarray()[np.ix_(users, items)] > 0)
    assert found == [tuple(pair) for pair in expected.tolist()]


def test_no_interactions_are_refused() -> None:
    with pytest.raises(DataError, match="no interactions to learn from"):
        SharedNegativesSampler(sp.csr_matrix((3, 4)), 2, 2)
