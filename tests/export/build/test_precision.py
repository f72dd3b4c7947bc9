from __future__ import annotations

import numpy as np
import pytest

from export.build.ann import Vectors, file_bytes_per_item
from export.build.precision import PRECISIONS, decode_rounded, store
from export.bundle.errors import ExportError

USERS, ITEMS, DIM = 30, 400, 12


@pytest.fixture
def vectors(rng: np.random.Generator) -> tuple[Vectors, Vectors]:
    users, items = (rng.normal(size=(rows, DIM)).astype(np.float32) for rows in (USERS, ITEMS))
    return users, items


@pytest.mark.parametrize("precision", [*PRECISIONS, "pq6"])
def test_the_index_scores_with_the_decoded_vectors(vectors: tuple[Vectors, Vectors], precision: str) -> None:
    stored = store(*vectors, precision)
    scores, rows = stored.index.search(stored.users, 20)
    expected = stored.users @ stored.items.T
    np.testing.assert_allclose(scores, np.take_along_axis(expected, rows, axis=1), atol=1e-4)
    np.testing.assert_allclose(scores, np.sort(expected, axis=1)[:, ::-1][:, :20], atol=1e-4)


@pytest.mark.parametrize(
    ("precision", "code_bytes", "bytes_per_user"),
    [("float32", 4 * DIM, 4 * DIM), ("float16", 2 * DIM, 2 * DIM), ("int8", DIM, 4 * DIM), ("pq6", 6, 4 * DIM)],
)
def test_bytes(vectors: tuple[Vectors, Vectors], precision: str, code_bytes: int, bytes_per_user: int) -> None:
    stored = store(*vectors, precision)
    assert (stored.code_bytes, stored.bytes_per_user) == (code_bytes, bytes_per_user)
    codebook = 256 * DIM * 4 / ITEMS if precision == "pq6" else 0
    assert file_bytes_per_item(stored.index) == pytest.approx(code_bytes + codebook, abs=1)


def test_fewer_bits_lose_more_and_float32_nothing(vectors: tuple[Vectors, Vectors]) -> None:
    users, items = vectors
    losses = [float(np.abs(store(users, items, name).items - items).max()) for name in PRECISIONS]
    assert losses[0] == 0 < losses[1] < losses[2] < 0.02
    np.testing.assert_array_equal(store(users, items, "int8").users, users)
    np.testing.assert_array_equal(store(users, items, "float16").users, users.astype(np.float16))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_codes_are_those_of_the_results_tables(vectors: tuple[Vectors, Vectors], precision: str) -> None:
    np.testing.assert_array_equal(store(*vectors, precision).items, decode_rounded(vectors[1], precision))


def test_stored_element_types_lose_nothing_more(vectors: tuple[Vectors, Vectors]) -> None:
    for precision in PRECISIONS:
        stored = store(*vectors, precision)
        np.testing.assert_array_equal(stored.items.astype(stored.item_dtype), stored.items)
        np.testing.assert_array_equal(stored.users.astype(stored.user_dtype), stored.users)
        users, items = stored.as_stored
        assert (users.dtype.name, items.dtype.name) == (stored.user_dtype, stored.item_dtype)


@pytest.mark.parametrize("side", [0, 1])
def test_a_value_too_large_for_the_precision(vectors: tuple[Vectors, Vectors], side: int) -> None:
    vectors[side][0, 0] = 1e6
    store(*vectors, "float32")
    with pytest.raises(ExportError, match=r"embeddings in float16: 1 of .* not finite"):
        store(*vectors, "float16")
