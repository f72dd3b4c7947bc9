from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.build.ann import build_index, write_index
from export.build.onnx_graphs import write_fold_in_graph, write_recommend_graph
from export.build.verify import verify_bundle
from export.bundle import (
    BundleContents,
    IndexCard,
    TruncatedIndex,
    WrongAnswer,
    open_bundle,
    write_bundle,
)
from tests.export.first_schema import write_first_fold_in_graph
from tests.export.toy import toy_contents, toy_manifest, write_toy

TABLE = 2 * np.eye(4, dtype=np.float32)


def write_with(
    target: Path,
    *,
    wrong: str = "",
    broken: str = "",
    contents: BundleContents | None = None,
) -> Path:
    """A toy bundle with real index and graphs, one of them of other embeddings or no graph at all."""
    contents = contents or replace(toy_contents(), fold_in_embeddings=TABLE)
    items = contents.item_embeddings

    def write(draft: Path) -> None:
        write_index(build_index("Flat", items * (2 if wrong == "index" else 1)), draft / "index.faiss")
        write_recommend_graph(draft)
        write_fold_in_graph(draft)
        if wrong == "fold_in":
            model = onnx.load(draft / "fold_in.onnx", load_external_data=False)
            model.graph.initializer[0].external_data[0].value = "item_embeddings.npy"
            (draft / "fold_in.onnx").write_bytes(model.SerializeToString())
        if wrong == "recommend":
            graph = (draft / "recommend.onnx").read_bytes()
            (draft / "recommend.onnx").write_bytes(graph.replace(b"user_embeddings.npy", b"item_embeddings.npy"))
        if broken:
            (draft / broken).write_bytes(b"placeholder")

    write_bundle(target, toy_manifest(), contents, write)
    return target


def test_a_good_bundle_is_good(tmp_path: Path) -> None:
    report = verify_bundle(write_with(tmp_path / "1"))
    assert report["users_compared"] == 3
    assert report["bundle_id"] == open_bundle(tmp_path / "1").manifest.bundle_id
    assert max(value for name, value in report.items() if name.endswith("difference")) < 1e-5


def test_a_bundle_of_the_first_schema_is_good(tmp_path: Path) -> None:
    def write(draft: Path) -> None:
        write_index(build_index("Flat", toy_contents().item_embeddings), draft / "index.faiss")
        write_recommend_graph(draft)
        write_first_fold_in_graph(draft, np.eye(4))

    assert write_bundle(tmp_path / "1", toy_manifest(), toy_contents(), write).schema_version == 1
    assert verify_bundle(tmp_path / "1")["fold_in_largest_difference"] == 0


@pytest.mark.parametrize("wrong", ["index", "fold_in"])
def test_a_part_of_other_embeddings(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(WrongAnswer, match=wrong):
        verify_bundle(write_with(tmp_path / "1", wrong=wrong))


def test_a_graph_that_maps_the_wrong_file(tmp_path: Path) -> None:
    path = write_with(tmp_path / "1", wrong="recommend")
    # The first rows of both toy matrices agree, so tell them apart by scaling the users.
    contents = replace(toy_contents(), user_embeddings=np.eye(3, 4, dtype=np.float32) * 2)
    other = tmp_path / "2"

    def write(draft: Path) -> None:
        for name in ("index.faiss", "recommend.onnx", "fold_in.onnx"):
            shutil.copy(path / name, draft / name)

    write_bundle(other, toy_manifest(), contents, write)
    with pytest.raises(WrongAnswer, match="recommend"):
        verify_bundle(other)


@pytest.mark.parametrize("broken", ["recommend.onnx", "fold_in.onnx"])
def test_what_is_no_graph(tmp_path: Path, broken: str) -> None:
    with pytest.raises(WrongAnswer, match=broken.partition(".")[0]):
        verify_bundle(write_with(tmp_path / "1", broken=broken))


def test_what_is_no_index(tmp_path: Path) -> None:
    write_toy(tmp_path / "1")
    with pytest.raises(TruncatedIndex):
        verify_bundle(tmp_path / "1")


def test_an_index_of_other_items_whose_finds_are_scored_anew(tmp_path: Path) -> None:
    items = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    contents = replace(
        toy_contents(),
        item_ids=[f"i{row}" for row in range(200)],
        item_embeddings=items,
        fold_in_embeddings=items,
        popularity=np.arange(200),
        item_titles=None,
        item_categories=None,
    )
    card = IndexCard("Flat", {"k_factor": 1}, 1.0, 20, 16.0, [])
    for sign, path in ((1, tmp_path / "1"), (-1, tmp_path / "2")):

        def write(draft: Path, sign: int = sign) -> None:
            write_index(build_index("Flat", items * sign), draft / "index.faiss")
            write_recommend_graph(draft)
            write_fold_in_graph(draft)

        write_bundle(path, replace(toy_manifest(), index=card), contents, write)
    assert verify_bundle(tmp_path / "1")["index_largest_difference"] < 1e-5
    with pytest.raises(WrongAnswer, match=r"finds 0\.0% of the exact top 20"):
        verify_bundle(tmp_path / "2")


def test_items_that_all_score_the_same_are_all_the_right_ones(tmp_path: Path) -> None:
    card = IndexCard("Flat", {"k_factor": 1}, 1.0, 2, 16.0, [])
    contents = replace(toy_contents(), user_embeddings=np.zeros((3, 4), dtype=np.float32), fold_in_embeddings=TABLE)
    path = write_with(tmp_path / "1", contents=contents)
    again = tmp_path / "2"

    def write(draft: Path) -> None:
        for name in ("index.faiss", "recommend.onnx", "fold_in.onnx"):
            shutil.copy(path / name, draft / name)

    write_bundle(again, replace(open_bundle(path).manifest, index=card), contents, write)
    assert verify_bundle(again)["index_largest_difference"] == 0.0


ANSWERS = np.array([[0, 2, 3], [1, 0, 3], [2, 0, 1]]), np.array([[1, 0, 0]] * 3, dtype=np.float32)


def test_ready_answers_that_are_the_exact_ones(tmp_path: Path) -> None:
    contents = replace(toy_contents(), fold_in_embeddings=TABLE, answer_rows=ANSWERS[0], answer_scores=ANSWERS[1])
    report = verify_bundle(write_with(tmp_path / "1", contents=contents))
    assert report["answers_largest_difference"] == 0.0


@pytest.mark.parametrize(
    ("row", "scores"),
    [
        ([0, 1, 2], [1, 0, 0]),  # seen
        ([0, 2, -1], [1, 0, 0]),  # ends too early
        ([0, 2, 3], [2, 0, 0]),  # another score
        ([2, 3, 0], [0, 0, 0]),  # not the best
    ],
)
def test_ready_answers_that_are_not(tmp_path: Path, row: list[int], scores: list[float]) -> None:
    rows, values = ANSWERS[0].copy(), ANSWERS[1].copy()
    rows[0], values[0] = row, scores
    contents = replace(toy_contents(), fold_in_embeddings=TABLE, answer_rows=rows, answer_scores=values)
    with pytest.raises(WrongAnswer, match="answer_rows"):
        verify_bundle(write_with(tmp_path / "1", contents=contents))
