from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save

from distill import finite
from distill.embeddings_file import map_embeddings, write_embeddings


@pytest.mark.parametrize("dtypes", [("f4", "f4"), ("f2", "f2"), ("f2", "f4")])
def test_the_file_is_the_librarys_byte_for_byte(
    rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtypes: tuple[str, str]
) -> None:
    monkeypatch.setattr(finite, "BLOCK_NUMBERS", 10)
    shapes = {"user_embeddings": (7, 3), "item_embeddings": (9, 3)}
    tensors = {
        name: rng.normal(size=shape).astype(dtype) for (name, shape), dtype in zip(shapes.items(), dtypes, strict=True)
    }
    write_embeddings(tmp_path / "a", tensors)
    assert (tmp_path / "a").read_bytes() == save(tensors)
    found = map_embeddings(tmp_path / "a")
    for name, matrix in tensors.items():
        np.testing.assert_array_equal(found[name], matrix)
        assert found[name].dtype == matrix.dtype


def test_other_types_become_float32(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "a", {"m": np.arange(6).reshape(2, 3).T})
    found = map_embeddings(tmp_path / "a")["m"]
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_what_is_written_into_a_mapped_matrix_stays_in_memory(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "a", {"m": np.ones((2, 3), np.float32)})
    found = map_embeddings(tmp_path / "a")["m"]
    torch.from_numpy(found).zero_()
    assert not found.any()
    assert map_embeddings(tmp_path / "a")["m"].all()


def test_a_file_that_is_replaced_is_still_read_as_it_was(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "a", {"m": np.ones((2, 3), np.float32)})
    found = map_embeddings(tmp_path / "a")["m"]
    write_embeddings(tmp_path / "a", {"m": np.zeros((1, 1), np.float32)})
    assert found.tolist() == [[1, 1, 1]] * 2


@pytest.mark.parametrize("matrix", [np.ones((2, 2), np.float64), np.ones(3, np.float32), np.ones((2, 2), np.int8)])
def test_what_is_no_matrix_of_floats_is_refused(tmp_path: Path, matrix: np.ndarray) -> None:
    (tmp_path / "a").write_bytes(save({"m": matrix}))
    with pytest.raises(ValueError, match=r"m is .* not a matrix of float32 or float16"):
        map_embeddings(tmp_path / "a")
