from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from export.build.ann import write_index
from serve.answers.errors import UnusableBundle
from serve.answers.types import Scores
from serve.live.comparison import compare_index
from serve.live.loader import load_model
from tests.export.bundle.test_bundle_fuzz import declare
from tests.serve.repositories import contents, publish

RNG = np.random.default_rng(4)
ITEMS = RNG.normal(size=(300, 8)).astype(np.float32)
USERS = RNG.normal(size=(16, 8)).astype(np.float32)


class Index:
    """Exact answers, spoilt by a function."""

    num_items, dim, is_exact = 300, 8, False

    def __init__(self, spoil: str) -> None:
        self.spoil = spoil

    def search(self, vectors: npt.NDArray[np.float32], k: int) -> tuple[Scores, npt.NDArray[np.int64]]:
        every = vectors @ ITEMS.T
        rows = np.argsort(-every, axis=1)[:, :k]
        scores = np.take_along_axis(every, rows, axis=1)
        if self.spoil == "fails":
            raise RuntimeError("Error in faiss: no")
        if self.spoil == "beyond":
            rows[3, 5] = 300
        elif self.spoil == "below":
            rows[3, 5] = -7
        elif self.spoil == "twice":
            rows[:, 1], scores[:, 1] = rows[:, 0], scores[:, 0]
        elif self.spoil == "unordered":
            rows, scores = rows[:, ::-1], scores[:, ::-1]
        elif self.spoil == "gap":
            rows[:, 2] = -1
        elif self.spoil == "scores":
            scores = scores * 1.01
        elif self.spoil == "nan":
            scores[0, 0] = np.nan
        elif self.spoil == "others":
            rows = np.argsort(every, axis=1)[:, :k][:, ::-1]
            scores = np.take_along_axis(every, rows, axis=1)
        return scores, rows


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        ("fails", "cannot be asked .Error in faiss: no."),
        ("beyond", "not those of 300 items"),
        ("below", "not those of 300 items"),
        ("twice", "not those of 300 items"),
        ("unordered", "not best first"),
        ("gap", "not best first"),
        ("scores", "not the embeddings' inner products"),
        ("nan", "not the embeddings' inner products"),
        ("others", "finds 0% of the best 20 items, the manifest says 99%"),
    ],
)
def test_an_index_that_answers_wrongly(spoil: str, wrong: str) -> None:
    with pytest.raises(UnusableBundle, match=wrong):
        compare_index(Index(spoil), ITEMS, USERS, Path("index.faiss"), ann_recall=0.99, k=20)


def test_an_index_that_answers_rightly() -> None:
    compare_index(Index(""), ITEMS, USERS, Path("index.faiss"), ann_recall=0.99, k=20)
    compare_index(Index(""), ITEMS, USERS[:1], Path("index.faiss"), ann_recall=1.0, k=1000)


@pytest.mark.parametrize("factory", ["Flat", "HNSW8", "IVF4,SQ8", "PQ8x4fs"])
def test_the_index_of_another_version_is_not_served(tmp_path: Path, factory: str) -> None:
    """Its checksum is right, and it has as many vectors of the same length."""
    path = publish(tmp_path, "student", factory="Flat", seed=1)
    load_model("student", path)
    others = np.ascontiguousarray(contents(seed=2).item_embeddings)
    index = faiss.index_factory(8, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(others)
    index.add(others)
    (path / "index.faiss").unlink()
    write_index(index, path / "index.faiss")
    declare(path, "index.faiss")
    with pytest.raises(UnusableBundle, match=r"index\.faiss: (its scores are not|finds \d+% of)"):
        load_model("student", path)


def test_the_fold_in_of_another_table_is_not_served(tmp_path: Path) -> None:
    path = publish(tmp_path, "student", factory="Flat", seed=1)
    graph = (path / "fold_in.onnx").read_bytes()
    (path / "fold_in.onnx").write_bytes(graph.replace(b"fold_in_embeddings.npy", b"item_embeddings.npy\0\0\0"))
    declare(path, "fold_in.onnx")
    with pytest.raises(UnusableBundle, match=r"fold_in\.onnx"):
        load_model("student", path)
