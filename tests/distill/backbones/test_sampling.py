from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.backbones.sampling import PairwiseSampler
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
