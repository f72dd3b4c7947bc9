from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.build.index_candidates import POINTS_PER_LIST, count_lists, list_candidates


@pytest.mark.parametrize(
    ("num_items", "lists"), [(1, 0), (4095, 0), (4096, 64), (25_181, 512), (100_000, 1024), (1_000_000, 4096)]
)
def test_lists_grow_with_the_square_root(num_items: int, lists: int) -> None:
    assert count_lists(num_items) == lists


@given(num_items=st.integers(1, 10**8), dim=st.integers(1, 1024))
def test_whatever_the_sizes(num_items: int, dim: int) -> None:
    candidates = list_candidates(num_items, dim)
    assert candidates[0].factory == "Flat"
    assert len({candidate.factory for candidate in candidates}) == len(candidates) <= 13
    assert count_lists(num_items) * POINTS_PER_LIST <= num_items
    for candidate in candidates:
        lossless = candidate.factory in ("Flat", "HNSW16", "HNSW32") or candidate.factory.endswith(",Flat")
        assert all(("k_factor" in search) != lossless for ladder in candidate.ladders for search in ladder)
        assert ("nprobe" in candidate.ladders[0][0]) == candidate.factory.startswith("IVF")


def test_small_catalogues_have_no_codebooks() -> None:
    factories = {candidate.factory for candidate in list_candidates(100, 8)}
    assert factories == {"Flat", "SQ8", "SQfp16", "HNSW16", "HNSW32", "HNSW16_SQ8"}


def test_codes_divide_the_dimension() -> None:
    assert [c.factory for c in list_candidates(2000, 6) if c.factory.startswith("PQ")] == ["PQ3x4fs", "PQ6x4fs"]
    assert [c.factory for c in list_candidates(2000, 7) if c.factory.startswith("PQ")] == ["PQ7x4fs"]
