from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from distill.data.interactions import Interactions
from distill.evaluation.protocol import Protocol, evaluate
from distill.evaluation.ranking import rank_items
from distill.run import Run
from export.build import quality
from export.build.precision import store
from export.build.publish import build_contents, had_items
from export.build.quality import (
    CONVENTION,
    QUALITY_FILE,
    Measuring,
    compare_with_teacher,
    measure_bundle,
    measure_quality,
)
from export.bundle import BundleContents, open_bundle
from tests.export.toy import toy_run, write_toy


def test_it_is_the_evaluation_under_the_stated_convention(data: Interactions) -> None:
    rng = np.random.default_rng(0)
    users = rng.normal(size=(data.num_users, 6)).astype(np.float32)
    items = rng.normal(size=(data.num_items, 6)).astype(np.float32)
    known = (data.train + data.validation).tocsr()
    report = evaluate(users, items, data, Protocol(mask="train+validation"))
    found = measure_quality(users, items, known, data.test)
    assert found["recall@20"] == pytest.approx(report.metrics["Recall@20"])
    assert found["ndcg@20"] == pytest.approx(report.metrics["NDCG@20"])


def test_items_that_are_seen_and_relevant_stay_answerable(data: Interactions) -> None:
    rng = np.random.default_rng(0)
    users = rng.normal(size=(data.num_users, 6)).astype(np.float32)
    items = rng.normal(size=(data.num_items, 6)).astype(np.float32)
    known = (data.train + data.validation).tocsr()
    everything = (known + data.test).tocsr()
    assert measure_quality(users, items, everything, data.test) == measure_quality(users, items, known, data.test)


def test_a_bundle_alone_tells_its_quality(tmp_path: Path) -> None:
    write_toy(tmp_path / "1")
    # Users 0 and 1 each have their own item held out, and it scores best.
    expected = {"recall@20": 1.0, "ndcg@20": 1.0, "convention": CONVENTION}
    assert measure_bundle(open_bundle(tmp_path / "1")) == expected


def test_nothing_held_out_gives_no_numbers() -> None:
    nothing = sp.csr_matrix((3, 4), dtype=np.float32)
    assert measure_quality(np.eye(3, 4), np.eye(4), nothing, nothing) == {}


def contents_of(data: Interactions, run: Run) -> BundleContents:
    vectors = store(run.user_embeddings, run.item_embeddings, "float32")
    return build_contents(data, vectors, had_items(data, "train+validation"))


@pytest.fixture
def teacher(tmp_path: Path, data: Interactions) -> Run:
    return toy_run(tmp_path / "teacher", data, 6)


@pytest.fixture
def rankings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry a ranking that was taken."""
    taken: list[int] = []

    def rank(*arguments: Any, **more: Any) -> Any:
        taken.append(1)
        return rank_items(*arguments, **more)

    monkeypatch.setattr(quality, "rank_items", rank)
    return taken


def test_a_teacher_is_ranked_once_for_all_its_students(
    data: Interactions, teacher: Run, tmp_path: Path, rankings: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    students = [toy_run(tmp_path / name, data, 3, teacher=teacher.path) for name in ("a", "b")]
    found = [Measuring(data).measure(contents_of(data, run), run.path, teacher) for run in students]
    assert len(rankings) == 3, "two students and one teacher"
    assert f"{teacher.path}: quality as measured before" in capsys.readouterr().err
    again = Measuring(data).measure(contents_of(data, students[1]), students[1].path, teacher)
    assert len(rankings) == 3
    assert again == found[1]
    of_teacher = Measuring(data).measure(contents_of(data, teacher), teacher.path, None)
    assert len(rankings) == 3, "a teacher that is exported itself was measured as one"
    assert of_teacher["recall@20"] == found[0]["teacher_recall@20"]


def test_other_vectors_other_data_or_other_users_are_measured_anew(
    data: Interactions, teacher: Run, rankings: list[int]
) -> None:
    contents = contents_of(data, teacher)
    Measuring(data).measure(contents, teacher.path, None)
    moved = teacher.item_embeddings.copy()
    moved[0, 0] += 1e-3
    others: list[tuple[Measuring, BundleContents]] = [
        (Measuring(data), replace(contents, item_embeddings=moved)),
        (Measuring(replace(data, train=data.validation)), contents),
        (Measuring(data, eval_users=7), contents),
        (Measuring(data), replace(contents, user_embeddings=contents.user_embeddings.astype(np.float16))),
    ]
    for number, (measuring, changed) in enumerate(others, start=2):
        measuring.measure(changed, teacher.path, None)
        assert len(rankings) == number
    Measuring(data).measure(contents, teacher.path, None)
    Measuring(data, eval_users=data.num_users).measure(contents, teacher.path, None)
    assert len(rankings) == len(others) + 1, "everybody, asked for or not"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"a": 1}'])
def test_a_file_that_cannot_be_read_is_written_anew(
    data: Interactions, teacher: Run, rankings: list[int], content: bytes
) -> None:
    (teacher.path / QUALITY_FILE).write_bytes(content)
    for _ in range(2):
        Measuring(data).measure(contents_of(data, teacher), teacher.path, None)
    assert len(rankings) == 1


def test_a_run_that_is_gone_is_measured_and_nothing_written(data: Interactions, teacher: Run, tmp_path: Path) -> None:
    assert "recall@20" in Measuring(data).measure(contents_of(data, teacher), tmp_path / "gone", None)
    assert not (tmp_path / "gone").exists()


def test_a_sample_says_so_and_is_that_of_the_evaluation(data: Interactions, teacher: Run) -> None:
    found = Measuring(data, eval_users=7).measure(contents_of(data, teacher), None, None)
    protocol = Protocol(mask="train+validation", cutoffs=(20,), eval_users=7)
    report = evaluate(teacher.user_embeddings, teacher.item_embeddings, data, protocol)
    assert found["convention"] == report.convention
    assert found["eval_users"] == 7
    assert found["recall@20"] == pytest.approx(report.metrics["Recall@20"])
    assert found["standard_error"]["ndcg@20"] == pytest.approx(report.standard_errors["NDCG@20"])


def test_models_measured_on_other_users_are_not_compared() -> None:
    model = {"recall@20": 0.1, "ndcg@20": 0.1, "convention": "of 7 users"}
    assert compare_with_teacher(model, model)["kept_recall"] == 1
    assert compare_with_teacher(model, {**model, "convention": "of 9 users"}) == {}
