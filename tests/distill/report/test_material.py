from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from distill.errors import RunError
from distill.evaluation.protocol import evaluate
from distill.report.material import (
    Curve,
    find_teacher,
    gather,
    popularity_deciles,
    rank_all,
    rank_run,
    read_histories,
    share_by_decile,
)
from distill.run import open_run, write_run
from tests.distill.report.invented import Gallery, invent_analysis, invent_frontier, invent_run
from tests.distill.toy import build_interactions, build_random


def test_seeds_make_one_group_and_the_teacher_comes_first(gallery: Gallery) -> None:
    material = gather(gallery.students)
    assert [group.name for group in material.groups] == [
        "teacher (scratch wd 0.001, d 16)",
        "freqd bipartite α 0.2 wd 0.001, d 12",
        "scratch wd 0.001, d 4",
    ]
    assert [len(group.runs) for group in material.groups] == [1, 2, 1]
    assert [group.colour for group in material.groups] == [0, 1, 2]
    assert [group.is_teacher for group in material.groups] == [True, False, False]
    assert material.data_name == gallery.data.name
    assert [run.path for run in material.runs] == [gallery.teacher.path, *gallery.students]


def test_a_teacher_that_is_given_is_not_shown_twice(gallery: Gallery, tmp_path: Path) -> None:
    assert len(gather([*gallery.students, gallery.teacher.path]).runs) == 4
    copy = shutil.copytree(gallery.teacher.path, tmp_path / "moved")
    moved = gather([*gallery.students, copy])
    assert moved.teacher is not None
    assert moved.teacher.path == copy
    assert len(moved.runs) == 4
    assert len(gather([gallery.students[0], gallery.students[0]]).runs) == 2


def test_a_teacher_that_is_not_at_hand_is_done_without(gallery: Gallery, tmp_path: Path) -> None:
    student = invent_run(tmp_path / "a", gallery.data, method="fd", teacher=gallery.teacher)
    config = {**student.config, "teacher": str(tmp_path / "gone")}
    write_run(tmp_path / "a", config, student.user_embeddings, student.item_embeddings, student.metrics)
    material = gather([tmp_path / "a", gallery.scratch.path])
    assert material.teacher is None
    assert [group.colour for group in material.groups] == [1, 2]
    assert find_teacher([gallery.scratch]) is None


def test_of_two_teachers_none_is_the_teacher(gallery: Gallery, tmp_path: Path) -> None:
    other = invent_run(tmp_path / "other", gallery.data, dim=3)
    student = invent_run(tmp_path / "a", gallery.data, method="fd", teacher=other)
    assert find_teacher([gallery.freqd[0], student]) is None
    assert find_teacher([student]) is not None


def test_names_that_would_repeat_say_the_directory(gallery: Gallery, tmp_path: Path) -> None:
    run = invent_run(tmp_path / "aside", gallery.data, skill=0.5)
    config = {**run.config, "training": {"weight_decay": 0.001, "epochs": 9}}
    write_run(run.path, config, run.user_embeddings, run.item_embeddings, run.metrics)
    names = [group.name for group in gather([gallery.scratch.path, run.path]).groups]
    assert names == [f"scratch wd 0.001, d 4 ({path})" for path in (gallery.scratch.path, run.path)]


def test_everything_must_be_about_one_data_set(gallery: Gallery, tmp_path: Path) -> None:
    data = build_random(np.random.default_rng(6))
    stranger = invent_run(tmp_path / "stranger", data)
    with pytest.raises(RunError, match="stranger: was trained on other data than"):
        gather([gallery.scratch.path, stranger.path])
    with pytest.raises(RunError, match=r"data\.fingerprint is not that of data set"):
        gather([stranger.path], gallery.folder / "data")
    analysis = invent_analysis(tmp_path / "analysis.json", "elsewhere", ["scratch"])
    with pytest.raises(RunError, match="is about data set 'elsewhere', the runs about 'toy'"):
        gather([gallery.scratch.path], analysis=analysis)
    with pytest.raises(RunError, match="is about other data than the runs"):
        gather([gallery.scratch.path], frontier=invent_frontier(data))


@pytest.mark.parametrize("content", ["nonsense", "[]", "{}", json.dumps({"data": "toy", "groups": []})])
def test_a_file_that_is_no_analysis_is_refused(gallery: Gallery, tmp_path: Path, content: str) -> None:
    path = tmp_path / "analysis.json"
    path.write_text(content)
    with pytest.raises(RunError, match=r"analysis\.json: .*'lowpass analyze --out' writes it"):
        gather([gallery.scratch.path], analysis=path)
    with pytest.raises(RunError, match="nothing: unreadable"):
        gather([gallery.scratch.path], analysis=tmp_path / "nothing")


def test_what_was_invented_reads_back(gallery: Gallery) -> None:
    assert open_run(gallery.teacher.path).metrics["test"]["Recall@20"] > gallery.scratch.metrics["test"]["Recall@20"]


def test_best_within_a_time_looks_back_and_never_ahead() -> None:
    curve = Curve(np.array([5.0, 10, 15]), np.array([1.0, 2, 4]), np.array([0.1, 0.3, 0.2]))
    assert [curve.best_within(seconds) for seconds in (0.5, 1, 3, 4, 99)] == [None, 0.1, 0.3, 0.3, 0.3]


def test_the_clock_is_processor_time_where_every_run_has_it(gallery: Gallery, tmp_path: Path) -> None:
    run = invent_run(tmp_path / "a", gallery.data)
    _, clock = read_histories([run, gallery.scratch])
    assert clock == "seconds"
    (run.path / "history.csv").write_text("epoch,seconds,processor_seconds,Recall@20\n5,9.0,0.0,0.1\n10,99.0,3.0,0.2\n")
    curves, clock = read_histories([open_run(run.path)])
    assert clock == "processor_seconds"
    np.testing.assert_array_equal(curves[run.path].seconds, [0.001, 3.0])


def test_each_users_recall_is_that_of_the_evaluation(gallery: Gallery) -> None:
    for run in (gallery.teacher, gallery.scratch):
        report = evaluate(run.user_embeddings, run.item_embeddings, gallery.data)
        np.testing.assert_array_equal(rank_run(run, gallery.data).recall, report.per_user["Recall@20"])


def test_deciles_are_tenths_of_the_catalogue_by_training_interactions() -> None:
    pairs = [(user, item) for item in range(20) for user in range(20 - item)]
    deciles = popularity_deciles(build_interactions((20, 20), pairs))
    np.testing.assert_array_equal(deciles, np.repeat(np.arange(9, -1, -1), 2))
    shares = share_by_decile(np.array([0, 1, 0, 19]), deciles)
    np.testing.assert_allclose(shares, [0.25, *[0] * 8, 0.75])
    assert share_by_decile(np.array([], dtype=np.int64), deciles).sum() == 0


def test_a_recommender_of_the_popular_is_seen_as_one(gallery: Gallery, tmp_path: Path) -> None:
    popularity = np.bincount(gallery.data.train.indices, minlength=gallery.data.num_items).astype(np.float32)
    run = invent_run(tmp_path / "popular", gallery.data, dim=1)
    users = np.ones((gallery.data.num_users, 1), dtype=np.float32)
    write_run(run.path, run.config, users, popularity[:, None], {})
    (material,) = [gather([run.path], gallery.folder / "data")]
    (lists,) = rank_all(material).values()
    assert lists.deciles[-1] > 0.15
    assert lists.deciles[0] == 0
    assert lists.deciles.sum() == pytest.approx(1)
