from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import scipy.sparse as sp

from distill.data.interactions import Interactions
from distill.errors import RunError
from distill.evaluation.protocol import Protocol, evaluate
from distill.run import open_run
from export.build.fold_in import FoldInSettings, fit_fold_in
from export.build.onnx_graphs import write_fold_in_graph
from export.build.publish import ExportOptions, Seen, export_run
from export.build.verify import verify_bundle
from export.bundle import ExportError, WrongAnswer, open_bundle
from export.bundle.repository import ModelRepository
from tests.export.toy import toy_interactions, toy_run


def test_the_bundle_holds_the_run_and_the_data(workplace: Path, data: Interactions) -> None:
    run = open_run(workplace / "student")
    bundle = open_bundle(ModelRepository(workplace / "models").resolve("student"))
    np.testing.assert_array_equal(bundle.user_embeddings, run.user_embeddings)
    np.testing.assert_array_equal(bundle.item_embeddings, run.item_embeddings)
    assert bundle.user_ids.take(range(data.num_users)) == data.user_ids.tolist()
    assert bundle.item_ids.index_many(data.item_ids.tolist()).tolist() == list(range(data.num_items))
    user = 5
    wanted = np.union1d(data.train[user].indices, data.validation[user].indices)
    assert bundle.seen(user).tolist() == wanted.tolist()
    counts = np.bincount(data.train.indices, minlength=data.num_items)
    assert (np.diff(counts[bundle.popularity]) <= 0).all()
    assert bundle.item_titles is not None
    assert data.item_titles is not None
    assert bundle.item_titles.take(range(data.num_items)) == list(data.item_titles)
    assert bundle.category_names is not None
    assert bundle.manifest.data == {"name": data.name, "fingerprint": data.fingerprint}


def test_quality_is_the_evaluations_and_kept_is_the_ratio(workplace: Path, data: Interactions) -> None:
    quality = open_bundle(ModelRepository(workplace / "models").resolve("student")).manifest.quality
    reports = {}
    for name in ("student", "teacher"):
        run = open_run(workplace / name)
        protocol = Protocol(mask="train+validation")
        reports[name] = evaluate(run.user_embeddings, run.item_embeddings, data, protocol)
    assert quality["recall@20"] == pytest.approx(reports["student"].metrics["Recall@20"])
    assert quality["teacher_ndcg@20"] == pytest.approx(reports["teacher"].metrics["NDCG@20"])
    assert quality["kept_recall"] == pytest.approx(quality["recall@20"] / quality["teacher_recall@20"])
    assert quality["convention"] == reports["student"].convention


def test_histories_are_folded_in_by_the_table_that_was_measured(workplace: Path, data: Interactions) -> None:
    bundle = open_bundle(ModelRepository(workplace / "models").resolve("student"))
    card = bundle.manifest.fold_in
    assert bundle.manifest.schema_version == 2
    table = fit_fold_in(data.train, bundle.user_embeddings, FoldInSettings(card["shrinkage"], card["dropped"]))
    np.testing.assert_array_equal(bundle.fold_in_embeddings, table)
    assert card["validation_recall@20"] > 0.8 * card["trained_vectors_validation_recall@20"]
    assert card["validation_recall@20"] > card["validation_recall@20_of_3"] > 0


def test_the_label_points_to_the_new_version(workplace: Path, data: Interactions, tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path)
    run = open_run(workplace / "student")
    for version in ("1", "2"):
        path = export_run(run, data, repository, "student", ExportOptions(label="stable"))
        assert path == tmp_path / "student" / version
    assert repository.labels("student") == {"stable": "2", "previous": "1"}
    first, second = (open_bundle(tmp_path / "student" / version) for version in ("1", "2"))
    arrays = [name for name in first.manifest.files if name.endswith((".npy", ".onnx"))]
    assert all(first.manifest.files[name] == second.manifest.files[name] for name in arrays)


def test_half_precision_and_production_seen(workplace: Path, data: Interactions, tmp_path: Path) -> None:
    options = ExportOptions(dtype="float16", seen="all")
    run = open_run(workplace / "student")
    bundle = open_bundle(export_run(run, data, ModelRepository(tmp_path), "half", options))
    assert bundle.item_embeddings.dtype == np.float16
    assert set(data.test[3].indices) <= set(bundle.seen(3).tolist())
    full = open_bundle(ModelRepository(workplace / "models").resolve("student")).manifest.quality
    # What is held out stays measurable; rounding to half precision moves little.
    assert bundle.manifest.quality["recall@20"] == pytest.approx(full["recall@20"], abs=0.02)


def test_data_without_test_titles_or_categories(tmp_path: Path) -> None:
    whole = toy_interactions(30, 40)
    nothing = sp.csr_matrix(whole.test.shape, dtype=np.float32)
    data = replace(whole, validation=nothing, test=nothing, item_titles=None, item_categories=None)
    run = toy_run(tmp_path / "run", data, 4)
    bundle = open_bundle(export_run(run, data, ModelRepository(tmp_path / "models"), "bare"))
    assert bundle.heldout_indptr is None
    assert bundle.item_titles is None
    assert "recall@20" not in bundle.manifest.quality
    assert bundle.manifest.model.teacher is None


def test_other_data_is_refused(workplace: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="fingerprint"):
        export_run(open_run(workplace / "student"), toy_interactions(30, 40), ModelRepository(tmp_path), "x")


def test_a_teacher_that_is_gone_is_no_teacher(workplace: Path, data: Interactions, tmp_path: Path) -> None:
    run = open_run(workplace / "student")
    orphan = replace(run, config={**run.config, "teacher": str(tmp_path / "gone")})
    bundle = open_bundle(export_run(orphan, data, ModelRepository(tmp_path / "models"), "orphan"))
    assert bundle.manifest.model.teacher is None
    assert "kept_recall" not in bundle.manifest.quality


def test_embeddings_that_half_precision_cannot_hold(data: Interactions, tmp_path: Path) -> None:
    run = toy_run(tmp_path / "run", data, 4, scale=1e6)
    with pytest.raises(ExportError, match=r"run: .* in float16: .* not finite"):
        export_run(run, data, ModelRepository(tmp_path / "m"), "x", ExportOptions(dtype="float16"))
    assert ModelRepository(tmp_path / "m").models() == []


def test_what_does_not_verify_leaves_nothing_behind(
    workplace: Path, data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A graph of another table than the bundle's: every write succeeds, and only the check can tell.
    def write(draft: Path) -> None:
        write_fold_in_graph(draft)
        graph = onnx.load(draft / "fold_in.onnx", load_external_data=False)
        graph.graph.initializer[0].external_data[0].value = "item_embeddings.npy"
        (draft / "fold_in.onnx").write_bytes(graph.SerializeToString())

    monkeypatch.setattr("export.build.publish.write_fold_in_graph", write)
    with pytest.raises(WrongAnswer, match="fold_in"):
        export_run(open_run(workplace / "student"), data, ModelRepository(tmp_path), "x", ExportOptions(label="stable"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("ann_recall", [-0.1, 1.1])
def test_a_recall_that_is_no_share(ann_recall: float) -> None:
    with pytest.raises(ExportError, match="ann_recall"):
        ExportOptions(ann_recall=ann_recall)


@pytest.mark.parametrize("seen", ["train+validation", "all"])
def test_ready_answers_leave_out_what_is_served_as_seen(
    workplace: Path, data: Interactions, tmp_path: Path, seen: Seen
) -> None:
    options = ExportOptions(answer_table=500, seen=seen)
    path = export_run(open_run(workplace / "student"), data, ModelRepository(tmp_path), "student", options)
    bundle = open_bundle(path)
    assert bundle.answer_rows is not None
    assert bundle.answer_scores is not None
    assert bundle.answer_rows.shape == (data.num_users, data.num_items)
    for user in range(data.num_users):
        there = bundle.answer_rows[user][bundle.answer_rows[user] >= 0]
        assert sorted([*there, *bundle.seen(user)]) == list(range(data.num_items))
    scores = bundle.item_embeddings[bundle.answer_rows[3][:5]] @ bundle.user_embeddings[3]
    np.testing.assert_allclose(bundle.answer_scores[3][:5], scores, rtol=1e-5)
    assert verify_bundle(path)["answers_largest_difference"] < 1e-4


def test_a_table_of_a_negative_length() -> None:
    with pytest.raises(ExportError, match="answer_table"):
        ExportOptions(answer_table=-1)
