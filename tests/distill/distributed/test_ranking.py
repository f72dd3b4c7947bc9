from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from distill.distributed import ranking
from distill.distributed.ranking import rank_range
from distill.evaluation.ranking import rank_items


def test_ranges_ranked_in_blocks_are_the_full_ranking(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "BLOCK_USERS", 7)
    monkeypatch.setattr(ranking, "BLOCK_ITEMS", 11)
    users, items = (torch.from_numpy(rng.normal(size=(n, 5)).astype(np.float32)) for n in (20, 60))
    hidden = sp.random(20, 60, density=0.2, format="csr", rng=rng)
    wanted = rank_items(users, items, hidden, np.arange(20), 6)
    found, scores = rank_range(users, items, 0, hidden, 6)
    assert np.array_equal(found, wanted)
    parts = [rank_range(users, items[a:b].numpy(), a, hidden, 6) for a, b in ((0, 23), (23, 60))]
    merged = np.concatenate([part[1] for part in parts], axis=1)
    order = np.argsort(-merged, axis=1)[:, :6]
    assert np.array_equal(np.take_along_axis(np.concatenate([p[0] for p in parts], axis=1), order, axis=1), wanted)
    np.testing.assert_allclose(np.take_along_axis(merged, order, axis=1), scores, rtol=1e-5)


def test_a_range_shorter_than_the_list_leaves_places_that_score_nothing() -> None:
    found, scores = rank_range(torch.ones(2, 1), torch.tensor([[1.0], [2.0]]), 5, sp.csr_matrix((2, 9)), 4)
    assert found[:, :2].tolist() == [[6, 5], [6, 5]]
    assert np.isneginf(scores[:, 2:]).all()


def test_two_ranks_report_what_one_process_does(found: Any) -> None:
    report, wanted = found["checkpoint"]["report"], found["checkpoint"]["one process"]
    assert report["convention"] == wanted["convention"]
    assert report["num_users"] == wanted["num_users"]
    for name in wanted:
        if "@" in name:
            assert report[name] == pytest.approx(wanted[name], abs=1e-6), name


def test_beyond_the_bound_a_sample_of_users_is_asked_and_said(found: Any) -> None:
    sampled = found["checkpoint"]["sampled"]
    assert 19 <= sampled["num_users"] <= 21
    assert " drawn" in sampled["convention"]
    assert f"{sampled['num_users']} of " in sampled["convention"]
