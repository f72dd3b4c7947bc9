from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distill.evaluation.evaluate import evaluate
from distill.report.material import gather
from distill.report.recommendations import build_popularity, popularity_deciles, rank_all, rank_run, share_by_decile
from distill.report.section import Chart, LeftOut, Section, Table
from distill.run import write_run
from tests.distill.report.conftest import Gallery
from tests.distill.report.invented import invent_run
from tests.distill.toy import build_interactions


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


def test_popularity_and_coverage_stand_beside_the_teachers(gallery: Gallery) -> None:
    material = gallery.gather()
    section = build_popularity(material, rank_all(material))
    assert isinstance(section, Section)
    table, chart = section.parts
    assert isinstance(table, Table)
    assert isinstance(chart, Chart)
    assert [len(row) for row in table.rows] == [6, 6, 6]
    teacher, _, scratch = table.rows
    assert (teacher[2], teacher[4]) == ("1.00×", "1.00×")
    assert teacher[5] == "1.000"
    own, chosen = (rank_run(run, gallery.data).items for run in (gallery.scratch, gallery.teacher))
    common = np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(own.tolist(), chosen.tolist(), strict=True)])
    assert scratch[5] == f"{common:.3f}"
    popularity = gallery.scratch.metrics["test"]["Popularity@20"]
    assert scratch[1] == f"{popularity:.1f}"
    assert scratch[2] == f"{popularity / gallery.teacher.metrics['test']['Popularity@20']:.2f}×"
    assert [name for name, _ in chart.legend] == [group.name for group in material.groups]


def test_without_data_the_table_is_left(gallery: Gallery, tmp_path: Path) -> None:
    section = build_popularity(gather(gallery.students), {})
    assert isinstance(section, Section)
    assert len(section.parts) == 1
    assert "With --data" in section.lead
    run = invent_run(tmp_path / "a", gallery.data)
    write_run(run.path, run.config, run.user_embeddings, run.item_embeddings, {})
    assert isinstance(build_popularity(gather([run.path]), {}), LeftOut)
