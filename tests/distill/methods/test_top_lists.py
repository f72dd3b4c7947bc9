"""A blend's lists: complete, at the wanted temperature, looked up as ranked, and read back as written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import distill.methods.top_lists
from distill.errors import SettingError
from distill.methods.top_lists import HEAD, PERPLEXITY, ListStore, TopLists, list_top, sharpness

CPU = torch.device("cpu")


@pytest.fixture
def hidden(rng: np.random.Generator) -> sp.csr_matrix:
    taken = (rng.random((30, 700)) < 0.1).astype(np.float32)
    taken[3] = 1
    taken[4, 5:] = 1
    return sp.csr_matrix(taken)


@pytest.fixture
def lists(rng: np.random.Generator, hidden: sp.csr_matrix) -> TopLists:
    scores = rng.normal(size=hidden.shape).astype(np.float32)
    return list_top(lambda users: scores[users], hidden)


def test_lists_are_the_best_of_what_is_not_hidden(rng: np.random.Generator, hidden: sp.csr_matrix) -> None:
    scores = rng.normal(size=hidden.shape).astype(np.float32)
    lists = list_top(lambda users: scores[users], hidden)
    masked = np.where(hidden.toarray() > 0, -np.inf, scores)
    wanted = np.argsort(-masked, axis=1)[:, :500]
    ordinary = [user for user in range(30) if user not in (3, 4)]
    np.testing.assert_array_equal(lists.items[ordinary], wanted[ordinary])
    np.testing.assert_array_equal(lists.items[4, :5], wanted[4, :5])
    ratio = lists.scores[0] / scores[0, wanted[0]]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert np.isfinite(lists.scores).all()
    assert (np.diff(lists.scores, axis=1) <= 0).all(), "what fills the end counts as the last one"
    for row in lists.items:
        assert len(set(row)) == 500


def test_the_softmax_over_the_head_has_the_perplexity_that_is_wanted(lists: TopLists) -> None:
    ordinary = torch.from_numpy(lists.scores).double()[:, :HEAD]
    entropies = torch.special.entr(torch.softmax(ordinary, dim=1)).sum(dim=1)
    assert float(entropies.exp().mean()) == pytest.approx(PERPLEXITY * HEAD, rel=1e-3)
    assert sharpness(np.zeros((2, 5), dtype=np.float32)) == 1.0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_sharpness_takes_the_scale_out(rng: np.random.Generator, scale: float) -> None:
    scores = -np.sort(-rng.normal(size=(20, 50)), axis=1).astype(np.float32)
    assert sharpness(scores * np.float32(scale)) * scale == pytest.approx(sharpness(scores), rel=1e-3)


def test_what_is_not_listed_counts_as_the_last_item(lists: TopLists) -> None:
    wanted = np.tile(np.array([lists.items[0, 7], lists.items[0, 499]], dtype=np.int32), (30, 1))
    wanted[0] = [lists.items[0, 7], next(item for item in range(700) if item not in lists.items[0])]
    found = lists.score(wanted, CPU).numpy()
    np.testing.assert_array_equal(found[0], [lists.scores[0, 7], lists.scores[0, 499]])


def test_longer_heads_than_lists_are_refused(lists: TopLists) -> None:
    assert lists.top(500).shape == (30, 500)
    with pytest.raises(SettingError, match="num_top: 501 exceeds the 500 items"):
        lists.top(501)
    short = TopLists(lists.items[:, :9], lists.scores[:, :9], 9)
    assert short.top(100).shape == (30, 9), "a catalogue of nine has no more"


def test_lists_are_read_as_written_and_not_by_another_name(lists: TopLists, tmp_path: Path) -> None:
    store = ListStore(tmp_path, "ab" * 32)
    assert store.read("unseen", 700) is None
    store.write("unseen", lists, {"weights": {"teacher": 1.0}})
    found = store.read("unseen", 700)
    assert found is not None
    np.testing.assert_array_equal(found[0].items, lists.items)
    np.testing.assert_array_equal(found[0].scores, lists.scores)
    assert found[1] == {"weights": {"teacher": 1.0}}
    assert store.read("all", 700) is None
    assert ListStore(tmp_path, "cd" * 32).read("unseen", 700) is None
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert store.read("unseen", 700) is None, "what was cut is made anew"


def test_only_so_many_users_are_measured(lists: TopLists, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distill.methods.top_lists, "HEAD_USERS", 3)
    again = list_top(lambda users: lists.scores[users], sp.csr_matrix(lists.scores.shape, dtype=np.float32))
    assert np.isfinite(again.scores).all()
