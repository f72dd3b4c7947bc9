from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import distill.distributed.teacher
from distill.data.interactions import load_interactions
from distill.distributed.teacher import RangeFiles, filter_rows, filtered_teacher, top_lists
from distill.evaluation.ranking import rank_items
from distill.graph.adjacency import build_graph
from distill.graph.filters import GraphFilter, linear_coefficients
from distill.methods.base import Teacher
from distill.run import open_run
from tests.distill.distributed.test_shares import shares_of

COEFFICIENTS = linear_coefficients(0.2)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_filtered_rows_and_the_filtered_teacher_are_those_of_one_process(
    small: Path, tmp_path: Path, size: int
) -> None:
    data, run = load_interactions(small / "data"), open_run(small / "teacher")
    whole = GraphFilter(build_graph(data), COEFFICIENTS)
    wanted = whole.filter_all(np.float32(2.0) * np.concatenate([run.user_embeddings, run.item_embeddings]))
    for share in shares_of(small / "data", size):
        rows = share.table_rows(np.arange(share.num_own))
        filtered = filter_rows(share, COEFFICIENTS)
        assert abs(filtered - whole.matrix[rows]).max() < 1e-7
        files = RangeFiles(tmp_path, share, {"scale": 2.0}, shown=False)
        targets = filtered_teacher(files, filtered, run, 2.0)
        assert targets.dtype == np.float16
        np.testing.assert_allclose(targets, wanted[rows], rtol=1e-3, atol=1e-6)


def test_top_lists_are_those_of_a_full_ranking_and_are_made_once(small: Path, tmp_path: Path) -> None:
    data, run = load_interactions(small / "data"), open_run(small / "teacher")
    features = np.concatenate([run.user_embeddings, run.item_embeddings])
    teacher = Teacher(torch.from_numpy(features), data.num_users)
    wanted = rank_items(teacher.users, teacher.items, data.train, np.arange(data.num_users), 7)
    for share in shares_of(small / "data", 2):
        files = RangeFiles(tmp_path, share, {}, shown=False)
        lists = top_lists(files, run, share.train, 7, 0.5)
        assert np.array_equal(lists.items, wanted[share.users])
        scores = np.einsum("ud,ukd->uk", teacher.users.numpy(), teacher.items.numpy()[wanted])[share.users]
        kept = lists.of(np.arange(share.num_own_users))
        np.testing.assert_allclose(kept.scores, scores / 4, rtol=1e-5, atol=1e-7)
        made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        top_lists(files, run, share.train, 7, 0.5)
        assert made == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 2


def test_a_catalogue_that_is_not_scored_whole_is_listed_by_the_index_of_one_process(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, run = shares_of(small / "data", 2)[1], open_run(small / "teacher")
    files = RangeFiles(tmp_path, share, {}, shown=False)
    exact = top_lists(files, run, share.train, 7, 0.5)
    monkeypatch.setattr(distill.distributed.teacher, "is_whole", lambda *_: False)
    for _ in range(2):  # made, then read
        lists = top_lists(files, run, share.train, 7, 0.5)
        found = [len(set(a) & set(b)) for a, b in zip(lists.items, exact.items, strict=True)]
        assert np.mean(found) > 0.9 * 7
        first = lists.of(np.arange(len(found))).scores
        wanted = exact.of(np.arange(len(found))).scores
        same = (lists.items == exact.items).all(axis=1)
        assert same.sum() > 5
        np.testing.assert_allclose(first[same], (wanted - wanted[:, :1])[same], atol=1e-3)
    monkeypatch.setattr(distill.distributed.teacher, "store_lists", lambda *_: pytest.fail("made again"))
    top_lists(files, run, share.train, 7, 0.5)
