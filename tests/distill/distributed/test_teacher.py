from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from distill.data.interactions import load_interactions
from distill.distributed.teacher import RangeFiles, filter_rows, filtered_teacher, map_run, top_lists
from distill.errors import RunError
from distill.evaluation.ranking import rank_items
from distill.graph.adjacency import build_graph
from distill.graph.filters import GraphFilter, linear_coefficients
from distill.methods.base import Teacher
from distill.run import features_fingerprint, open_run
from tests.distill.distributed.test_shares import shares_of

COEFFICIENTS = linear_coefficients(0.2)


def test_a_mapped_run_holds_what_an_opened_one_does(small: Path) -> None:
    mapped, opened = map_run(small / "teacher"), open_run(small / "teacher")
    assert isinstance(mapped.user_embeddings, np.memmap)
    assert np.array_equal(mapped.user_embeddings, opened.user_embeddings)
    assert np.array_equal(mapped.item_embeddings, opened.item_embeddings)
    assert features_fingerprint(mapped) == features_fingerprint(opened)


def test_what_is_no_run_is_named(tmp_path: Path, small: Path) -> None:
    with pytest.raises(RunError, match=r"no finished run there"):
        map_run(tmp_path)
    for name in ("config.json", "metrics.json"):
        (tmp_path / name).write_text((small / "teacher" / name).read_text())
    (tmp_path / "embeddings.safetensors").write_bytes(b"\x10\0\0\0")
    with pytest.raises(RunError, match=r"unreadable run"):
        map_run(tmp_path)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_filtered_rows_and_the_filtered_teacher_are_those_of_one_process(
    small: Path, tmp_path: Path, size: int
) -> None:
    data, run = load_interactions(small / "data"), map_run(small / "teacher")
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
    data, run = load_interactions(small / "data"), map_run(small / "teacher")
    features = np.concatenate([run.user_embeddings, run.item_embeddings])
    teacher = Teacher(torch.from_numpy(features), data.num_users)
    wanted = rank_items(teacher.users, teacher.items, data.train, np.arange(data.num_users), 7)
    for share in shares_of(small / "data", 2):
        files = RangeFiles(tmp_path, share, {}, shown=False)
        lists = top_lists(files, run, share.train, 7, 0.5)
        assert np.array_equal(lists["items"], wanted[share.users])
        scores = np.einsum("ud,ukd->uk", teacher.users.numpy(), teacher.items.numpy()[wanted])[share.users]
        np.testing.assert_allclose(lists["scores"], scores / 4, rtol=1e-5, atol=1e-7)
        made = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
        top_lists(files, run, share.train, 7, 0.5)
        assert made == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(list(tmp_path.iterdir())) == 2
