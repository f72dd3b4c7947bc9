from __future__ import annotations

import numpy as np
import pytest

from export.build.ann import Vectors, code_size
from export.build.precision import codebook_size, quantize_items
from export.bundle.errors import ExportError


def factors(num_users: int, num_items: int, dim: int, seed: int = 0) -> tuple[Vectors, Vectors]:
    rng = np.random.default_rng(seed)
    users, items = (rng.normal(size=(count, dim)).astype(np.float32) for count in (num_users, num_items))
    return users, items


@pytest.mark.parametrize(
    ("dim", "code_bytes", "factory"),
    [(16, 8, "PQ8x8np"), (16, 16, "PQ16x8np"), (20, 8, "RR24,PQ8x8np"), (6, 8, "RR8,PQ8x8np")],
)
def test_scores_are_those_of_the_decoded_vectors(dim: int, code_bytes: int, factory: str) -> None:
    users, items = factors(20, 600, dim)
    index, decoded, name = quantize_items(items, code_bytes)
    assert name == factory
    assert code_size(index) == code_bytes
    scores, rows = index.search(users, 10)
    expected = np.take_along_axis(users @ decoded.T, rows, axis=1)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert codebook_size(index) == 256 * 4 * (-(-dim // code_bytes) * code_bytes)


def test_more_bytes_lose_less() -> None:
    _, items = factors(1, 600, 16)
    losses = [float(np.square(quantize_items(items, size)[1] - items).mean()) for size in (2, 4, 16)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.01


def test_few_items_take_fewer_bits() -> None:
    index, _, factory = quantize_items(factors(1, 20, 16)[1], 8)
    assert factory == "PQ8x4np"
    assert code_size(index) == 4


@pytest.mark.parametrize(("num_items", "code_bytes"), [(1, 4), (20, 0)])
def test_nothing_to_quantise(num_items: int, code_bytes: int) -> None:
    with pytest.raises(ExportError):
        quantize_items(factors(1, num_items, 8)[1], code_bytes)
