from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given
from hypothesis import strategies as st

import distill.backbones.sampling
from distill.backbones.sampling import PairwiseSampler, SharedNegativesSampler, interactions_of, taken_pairs
from distill.data.interactions import Interactions
from distill.errors import DataError
from tests.distill.toy import build_interactions, build_random


def test_an_epoch_holds_every_interaction_once(rng: np.random.Generator) -> None:
    train = build_random(rng).train
    sampler = PairwiseSampler(train, batch_size=50)
    batches = list(sampler.epoch(rng))
    assert len(batches) == sampler.num_batches == 4
    assert [len(batch.users) for batch in batches] == [50, 50, 50, 30]
    assert {part.dtype for batch in batches for part in vars(batch).values()} == {torch.int64}
    pairs = {
        (user, item)
        for batch in batches
        for user, item in zip(batch.users.tolist(), batch.positives.tolist(), strict=True)
    }
    assert pairs == set(zip(*(part.tolist() for part in train.nonzero()), strict=True))


def test_epochs_differ_in_order_and_negatives_and_repeat_with_the_seed(rng: np.random.Generator) -> None:
    sampler = PairwiseSampler(build_random(rng).train, batch_size=1000)
    one, two, again = (next(iter(sampler.epoch(np.random.default_rng(seed)))) for seed in (1, 2, 1))
    assert torch.equal(one.users, again.users)
    assert torch.equal(one.positives, again.positives)
    assert torch.equal(one.negatives, again.negatives)
    assert not torch.equal(one.users, two.users)
    assert not torch.equal(one.negatives, two.negatives)


def test_a_negative_is_never_a_training_item(rng: np.random.Generator) -> None:
    data = build_random(rng, num_users=20, num_items=12, taken=11)
    sampler = PairwiseSampler(data.train, batch_size=64)
    taken = data.train.toarray() > 0
    for _ in range(20):
        for batch in sampler.epoch(rng):
            assert not taken[batch.users.numpy(), batch.negatives.numpy()].any()


def test_negatives_are_uniform_over_what_the_user_has_not_taken(rng: np.random.Generator) -> None:
    data = build_interactions((2, 10), train=[(0, 0), (0, 4), (0, 9), (1, 2)])
    sampler = PairwiseSampler(data.train, batch_size=4)
    draws = np.stack([sampler.draw_negatives(rng) for _ in range(7000)])
    counts = np.bincount(draws[:, :3].ravel(), minlength=10)
    open_items = [1, 2, 3, 5, 6, 7, 8]
    expected = draws[:, :3].size / len(open_items)
    assert counts[[0, 4, 9]].sum() == 0
    chi_square = float((np.square(counts[open_items] - expected) / expected).sum())
    assert chi_square < 22.5  # the 0.999 quantile of χ² with 6 degrees of freedom


def test_draws_are_those_of_earlier_versions() -> None:
    train = build_random(np.random.default_rng(7)).train
    batch = next(PairwiseSampler(train, 6).epoch(np.random.default_rng(3)))
    assert batch.users.tolist() == [12, 17, 0, 12, 28, 18]
    assert batch.positives.tolist() == [10, 13, 18, 11, 19, 14]
    assert batch.negatives.tolist() == [12, 17, 20, 18, 0, 6]
    shared = next(SharedNegativesSampler(train, 6, 3).epoch(np.random.default_rng(3)))
    assert shared.users.tolist() == [18, 9, 3, 4, 7, 29]
    assert shared.positives.tolist() == [23, 6, 3, 20, 9, 23]
    assert shared.negatives.tolist() == [21, 20, 14]


@given(st.integers(0, 2**31), st.integers(1, 40))
def test_looking_at_few_interactions_at_once_changes_no_draw(seed: int, block: int) -> None:
    random = np.random.default_rng(seed)
    train = sp.csr_matrix(random.random((12, 30)) < random.random() ** 2, dtype=np.float32)
    train = train.multiply(random.random((12, 1)) < 0.8).tocsr()  # some users without items, the first one too
    train.sort_indices()
    if train.nnz == 0 or np.diff(train.indptr).max() == 30:
        return
    epochs = []
    with pytest.MonkeyPatch.context() as patch:
        for size in (2**20, block):
            patch.setattr(distill.backbones.sampling, "BLOCK", size)
            epochs.append(list(PairwiseSampler(train, 7).epoch(np.random.default_rng(seed))))
    for one, two in zip(*epochs, strict=True):
        assert all(torch.equal(*parts) for parts in zip(vars(one).values(), vars(two).values(), strict=True))
    taken = train.toarray() > 0
    assert not any(taken[batch.users.numpy(), batch.negatives.numpy()].any() for batch in epochs[1])


def test_a_user_who_lacks_one_item_gets_that_one(rng: np.random.Generator) -> None:
    missing = 1234
    train = [(1, item) for item in range(4000) if item != missing]
    data = build_interactions((3, 4000), [(0, 0), *train, (2, 7)])
    negatives = PairwiseSampler(data.train, batch_size=64).draw_negatives(rng)
    assert (negatives[1:-1] == missing).all()


def test_impossible_training_data_is_refused() -> None:
    with pytest.raises(DataError, match="no interactions"):
        PairwiseSampler(build_interactions((2, 2), train=[]).train, 8)
    with pytest.raises(DataError, match="user row 1 has interacted with every item"):
        PairwiseSampler(build_interactions((2, 2), train=[(0, 0), (1, 0), (1, 1)]).train, 8)


def test_a_batch_moves_whole() -> None:
    data = build_interactions((1, 3), train=[(0, 1)])
    batch = next(PairwiseSampler(data.train, 8).epoch(np.random.default_rng(0)))
    moved = batch.to(torch.device("meta"))
    assert {part.device.type for part in (moved.users, moved.positives, moved.negatives)} == {"meta"}


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


def test_interactions_of_users_come_with_uniform_items(checkerboard: Interactions) -> None:
    users = torch.tensor([5, 2])
    batch = interactions_of(checkerboard.train, users, torch.Generator().manual_seed(0))
    dense = checkerboard.train.toarray()
    assert list(zip(batch.users.tolist(), batch.positives.tolist(), strict=True)) == [
        (user, item) for user in (5, 2) for item in np.flatnonzero(dense[user]).tolist()
    ]
    assert len(batch.negatives) == len(batch.positives)
    many = interactions_of(checkerboard.train, torch.arange(24).repeat(50), torch.Generator().manual_seed(0)).negatives
    counts = np.bincount(many.numpy(), minlength=24)
    assert abs(counts - len(many) / 24).max() < 5 * (len(many) / 24) ** 0.5


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
