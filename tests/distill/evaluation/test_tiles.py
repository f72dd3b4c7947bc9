from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from distill.errors import NotFiniteError
from distill.evaluation import ranking
from distill.evaluation.ranking import drawn_order, rank_items, rank_scores
from distill.evaluation.selection import GROUP
from distill.evaluation.tiles import rank_in_tiles, take_rows

USERS, ITEMS, K = 11, 1500, 10


@pytest.fixture
def tied(rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor, sp.csr_matrix]:
    """Whole numbers, so that products are exact and many scores equal; user 0 has no direction, user 1 4 items left."""
    users = torch.from_numpy(rng.integers(-1, 2, size=(USERS, 3)).astype(np.float32))
    users[0] = 0
    items = torch.from_numpy(rng.integers(-2, 3, size=(ITEMS, 3)).astype(np.float32))
    hidden = rng.random((USERS, ITEMS)) < 0.3
    hidden[1, 4:] = True
    hidden[2] = False
    hidden[3] = True
    return users, items, sp.csr_matrix(hidden.astype(np.float32))


@pytest.mark.parametrize(("tile_users", "tile_items"), [(1, GROUP), (4, 2 * GROUP), (3, 320), (256, 2048), (5, 1472)])
def test_tiles_find_what_whole_rows_find_ties_in_the_drawn_order(
    tied: tuple[torch.Tensor, torch.Tensor, sp.csr_matrix], tile_users: int, tile_items: int
) -> None:
    users, items, masked = tied
    rows = np.array([5, 0, 1, 2, 3, 10, 7])
    order = drawn_order(ITEMS)
    found, scores = rank_in_tiles(users, items, masked, rows, K, order, tile_users=tile_users, tile_items=tile_items)
    products = users @ items.T
    expected = rank_scores(lambda wanted: products[torch.from_numpy(wanted)], masked, rows, K)
    left = ITEMS - np.diff(masked.indptr)[rows]
    for row, number in enumerate(np.minimum(left, K)):
        np.testing.assert_array_equal(found[row, :number], expected[row, :number])
        assert set(found[row, number:]) <= set(masked[rows[row]].indices)
        assert len(set(found[row])) == K
    visible = np.arange(K) < left[:, None]
    np.testing.assert_array_equal(scores[visible], products.numpy()[rows[:, None], found][visible])
    assert (scores[~visible] == -np.inf).all()


def test_many_items_are_ranked_in_tiles(
    tied: tuple[torch.Tensor, torch.Tensor, sp.csr_matrix], monkeypatch: pytest.MonkeyPatch
) -> None:
    users, items, masked = tied
    wanted = np.arange(3)
    calls: list[int] = []

    def count(*given: object, **more: object) -> object:
        calls.append(1)
        return rank_in_tiles(*given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ranking, "rank_in_tiles", count)
    few = rank_items(users, items, masked, wanted, 3)
    assert not calls
    monkeypatch.setattr(ranking, "TILED_FROM", ITEMS)
    many = rank_items(users, items, masked, wanted, 3)
    assert calls
    products = (users @ items.T).numpy()
    np.testing.assert_array_equal(products[wanted[:, None], few], products[wanted[:, None], many])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_found_in_any_tile(monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    monkeypatch.setattr(ranking, "TILED_FROM", 1)
    users, items = torch.ones(2, 1), torch.ones(20000, 1)
    nothing = sp.csr_matrix((2, 20000), dtype=np.float32)
    items[int(drawn_order(20000)[-1])] = abs(bad)
    users[1] = 0.0 if np.isnan(bad) else 1.0
    if bad < 0:
        items[:] = bad
    with pytest.raises(NotFiniteError, match="of 2 users are not finite"):
        rank_items(users, items, nothing, np.arange(2), 5)


def test_mapped_half_precision_is_ranked_as_single(rng: np.random.Generator, tmp_path: Path) -> None:
    for name, size in (("users", USERS), ("items", ITEMS)):
        np.save(tmp_path / name, rng.normal(size=(size, 8)).astype(np.float16))
    users, items = (np.load(tmp_path / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("users", "items"))
    masked = sp.csr_matrix((USERS, ITEMS), dtype=np.float32)
    wide = torch.from_numpy(users.astype(np.float32)), torch.from_numpy(items.astype(np.float32))
    expected = rank_items(*wide, masked, np.arange(USERS), K)
    np.testing.assert_array_equal(rank_items(users, items, masked, np.arange(USERS), K), expected)
    tiled, _ = rank_in_tiles(users, items, masked, np.arange(USERS), K, drawn_order(ITEMS), tile_items=GROUP)
    np.testing.assert_array_equal(tiled, expected)
    assert take_rows(items, np.arange(3)).dtype == torch.float32


def test_nobody_to_rank_for_in_tiles() -> None:
    masked = sp.csr_matrix((2, 100), dtype=np.float32)
    nobody = np.array([], dtype=np.int64)
    found, scores = rank_in_tiles(torch.ones(2, 1), torch.ones(100, 1), masked, nobody, 3, drawn_order(100))
    assert found.shape == scores.shape == (0, 3)
