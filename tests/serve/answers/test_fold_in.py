from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from export.build.fold_in import FoldInWeights, build_whitening, fold_in
from export.bundle import open_bundle
from export.bundle.repository import ModelRepository
from serve.answers.errors import UnusableBundle
from serve.answers.fold_in import OnnxFoldIn


def test_computes_what_the_export_computes(repository: ModelRepository) -> None:
    bundle = open_bundle(repository.resolve("student"))
    graph = OnnxFoldIn(bundle.fold_in_onnx_path)
    whitening = build_whitening(bundle.item_embeddings, FoldInWeights())
    histories = [np.array([3]), np.array([5, 9, 1]), np.arange(40)]
    with ThreadPoolExecutor(4) as pool:
        vectors = list(pool.map(graph.encode, histories))
    for history, vector in zip(histories, vectors, strict=True):
        assert vector.shape == (bundle.manifest.model.dim,)
        assert vector.dtype == np.float32
        np.testing.assert_allclose(vector, fold_in(bundle.item_embeddings[history], whitening), atol=1e-4)


def test_another_graph_is_refused(repository: ModelRepository) -> None:
    with pytest.raises(UnusableBundle, match=r"recommend\.onnx: maps"):
        OnnxFoldIn(open_bundle(repository.resolve("student")).recommend_onnx_path)


def test_rubbish_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fold_in.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(UnusableBundle, match=r"fold_in\.onnx.*export again"):
        OnnxFoldIn(path)
