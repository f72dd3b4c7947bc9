from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from export.bundle import open_bundle, open_manifest
from export.bundle.arrays import save_array
from export.bundle.repository import ModelRepository
from serve.answers.errors import UnusableBundle
from serve.answers.fold_in import OnnxFoldIn
from serve.answers.types import Query, Recommendation, Source
from serve.live.loader import load_model
from tests.export.first_schema import write_first_fold_in_graph
from tests.serve.repositories import contents, publish


@pytest.mark.parametrize("in_memory", [False, True])
def test_is_the_mean_of_the_rows_of_its_table(repository: ModelRepository, *, in_memory: bool) -> None:
    bundle = open_bundle(repository.resolve("student"), copy_up_to=2**30)
    table = np.asarray(bundle.fold_in_embeddings)
    graph = OnnxFoldIn(bundle.fold_in_onnx_path, {"fold_in_embeddings": table} if in_memory else None)
    histories = [np.array([3]), np.array([5, 9, 1]), np.arange(40)]
    with ThreadPoolExecutor(4) as pool:
        vectors = list(pool.map(graph.encode, histories))
    for history, vector in zip(histories, vectors, strict=True):
        assert vector.shape == (bundle.manifest.model.dim,)
        assert vector.dtype == np.float32
        np.testing.assert_allclose(vector, table[history].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_solver_of_the_first_schema_answers_as_it_did(tmp_path: Path, *, in_memory: bool) -> None:
    items = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    save_array(tmp_path / "item_embeddings.npy", items)
    ridge = 0.7
    write_first_fold_in_graph(tmp_path, np.eye(4) / np.sqrt(ridge))
    graph = OnnxFoldIn(tmp_path / "fold_in.onnx", {"item_embeddings": items} if in_memory else None)
    history = np.array([2, 7, 7, 11])
    rows = items[history].astype(np.float64)
    expected = np.linalg.solve(rows.T @ rows + ridge * np.eye(4), rows.sum(axis=0))
    np.testing.assert_allclose(graph.encode(history), expected, atol=1e-6)


@pytest.mark.parametrize("copy_up_to", [0, 2**30])
@pytest.mark.parametrize("version", [1, 2])
def test_either_schema_is_served_mapped_and_in_memory(tmp_path: Path, version: int, copy_up_to: int) -> None:
    made = contents() if version == 2 else replace(contents(), fold_in_embeddings=None)
    path = publish(tmp_path, made=made)
    assert open_manifest(path).schema_version == version
    recommender = load_model("student", path, copy_up_to=copy_up_to).recommender
    (answer,) = recommender.recommend([Query(history=("i3", "i5"), k=4)]).outcomes
    assert isinstance(answer, Recommendation)
    assert (answer.source, len(answer.item_ids)) == (Source.FOLD_IN, 4)
    assert not {"i3", "i5"} & set(answer.item_ids)


def test_another_graph_is_refused(repository: ModelRepository) -> None:
    with pytest.raises(UnusableBundle, match=r"recommend\.onnx: maps"):
        OnnxFoldIn(open_bundle(repository.resolve("student")).recommend_onnx_path)


def test_rubbish_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fold_in.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(UnusableBundle, match=r"fold_in\.onnx.*export again"):
        OnnxFoldIn(path)
