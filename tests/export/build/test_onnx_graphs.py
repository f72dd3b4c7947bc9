from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch

from export.build.onnx_graphs import open_session, write_fold_in_graph, write_recommend_graph
from export.bundle.arrays import save_array
from export.bundle.errors import WrongAnswer

NUM_USERS, NUM_ITEMS = 50, 300


def write_embeddings(directory: Path, dim: int, dtype: str = "float32") -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    rng = np.random.default_rng(dim)
    users = rng.normal(size=(NUM_USERS, dim)).astype(dtype)
    # Lengths of a trained model differ by item and by direction.
    lengths = rng.gamma(1.0, size=(NUM_ITEMS, 1)) * rng.gamma(1.0, size=(1, dim))
    items = (rng.normal(size=(NUM_ITEMS, dim)) * lengths).astype(dtype)
    save_array(directory / "user_embeddings.npy", users)
    save_array(directory / "item_embeddings.npy", items)
    return users, items


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize(("batch", "k"), [(1, 1), (1, 20), (7, 20), (50, NUM_ITEMS)])
def test_recommend_equals_torch(tmp_path: Path, dtype: str, batch: int, k: int) -> None:
    users, items = write_embeddings(tmp_path, 20, dtype)
    write_recommend_graph(tmp_path)
    rows = np.arange(NUM_USERS - batch, NUM_USERS, dtype=np.int64)
    inputs = {"user_index": rows, "k": np.array([k])}
    scores, item_index = open_session(tmp_path / "recommend.onnx").run(["scores", "item_index"], inputs)
    wide_users, wide_items = (torch.from_numpy(part.astype(np.float32)) for part in (users[rows], items))
    expected = torch.topk(wide_users @ wide_items.T, k, dim=1)
    np.testing.assert_allclose(scores, expected.values.numpy(), atol=1e-5)
    np.testing.assert_array_equal(item_index, expected.indices.numpy())
    assert (scores.dtype, item_index.dtype) == (np.float32, np.int64)


def test_equal_scores_are_ordered_by_row(tmp_path: Path) -> None:
    save_array(tmp_path / "user_embeddings.npy", np.ones((1, 2), np.float32))
    save_array(tmp_path / "item_embeddings.npy", np.ones((5, 2), np.float32))
    write_recommend_graph(tmp_path)
    session = open_session(tmp_path / "recommend.onnx")
    (rows,) = session.run(["item_index"], {"user_index": np.array([0]), "k": np.array([5])})
    assert rows.tolist() == [[0, 1, 2, 3, 4]]


def test_weights_stay_in_the_array_files(tmp_path: Path) -> None:
    write_embeddings(tmp_path, 20)
    write_recommend_graph(tmp_path)
    model = onnx.load(tmp_path / "recommend.onnx", load_external_data=False)
    places = {entry.key: entry.value for entry in model.graph.initializer[1].external_data}
    assert places["location"] == "item_embeddings.npy"
    assert (tmp_path / "recommend.onnx").stat().st_size < 2000
    assert {opset.domain for opset in model.opset_import} == {""}


def test_the_graph_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    _, items = write_embeddings(tmp_path, 8)
    save_array(tmp_path / "fold_in_embeddings.npy", items)
    contents = set()
    for _ in range(2):
        write_recommend_graph(tmp_path)
        write_fold_in_graph(tmp_path)
        contents.add((tmp_path / "recommend.onnx").read_bytes() + (tmp_path / "fold_in.onnx").read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("dim", [8, 200])
def test_fold_in_equals_torchs_embedding_bag(tmp_path: Path, dim: int, dtype: str) -> None:
    table = np.random.default_rng(dim).normal(size=(NUM_ITEMS, dim)).astype(dtype)
    save_array(tmp_path / "fold_in_embeddings.npy", table)
    write_fold_in_graph(tmp_path)
    session = open_session(tmp_path / "fold_in.onnx")
    for history in ([5], [1, 2, 3], [4, 4, 4, 9], list(range(200))):
        (found,) = session.run(["user_embedding"], {"item_index": np.asarray(history, dtype=np.int64)})
        bag = torch.nn.functional.embedding_bag(torch.tensor([history]), torch.from_numpy(table.astype(np.float32)))
        assert (found.shape, found.dtype) == ((dim,), np.float32)
        np.testing.assert_allclose(found, bag[0].numpy(), atol=1e-6)


def test_a_graph_that_does_not_load_is_named(tmp_path: Path) -> None:
    (tmp_path / "recommend.onnx").write_bytes(b"placeholder")
    with pytest.raises(WrongAnswer, match="recommend"):
        open_session(tmp_path / "recommend.onnx")
