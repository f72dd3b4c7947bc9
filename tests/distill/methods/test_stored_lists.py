"""Lists of a catalogue that is too large to be scored whole: the right ones, on disk, and gone on with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import distill.methods.candidates
import distill.methods.item_index
import distill.methods.stored_lists
from distill.baselines.blend import Blend
from distill.baselines.graph_filters import ideal_filter
from distill.baselines.ials import ials
from distill.data.interactions import Interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.errors import SettingError
from distill.methods.base import Teacher
from distill.methods.co_teachers import blend_teachers, list_teacher
from distill.methods.stored_lists import Blended, Factors, open_lists, say_lists, store_lists
from distill.storage import write_file
from distill.training.job import build_job, run_job

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data() -> Interactions:
    return synthesize(SyntheticOptions(num_users=90, num_items=320, num_clusters=6, mean_interactions=14))


@pytest.fixture
def teacher(data: Interactions) -> Teacher:
    torch.manual_seed(1)
    return Teacher(torch.randn(data.num_users + data.num_items, 8), data.num_users)


@pytest.fixture
def is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """All lists are found, so that they can be compared: what is tested is not the index."""
    monkeypatch.setattr(distill.methods.candidates, "WHOLE_PAIRS", 100)
    monkeypatch.setattr(distill.methods.item_index, "RECALL", 1.0)
    monkeypatch.setattr(distill.methods.stored_lists, "STORED", 60)


def unseen(scores: torch.Tensor, data: Interactions, length: int) -> np.ndarray:
    masked = scores.clone()
    masked[data.train.nonzero()] = -torch.inf
    return masked.topk(length).indices.numpy()


def same_items(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.mean([len({*a} & {*b}) / len(a) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]))


@pytest.mark.usefixtures("is_large")
def test_a_teacher_alone_is_listed_with_its_own_scores(data: Interactions, teacher: Teacher, tmp_path: Path) -> None:
    listed = list_teacher(data, teacher, tmp_path, "ff")
    scores = teacher.users @ teacher.items.T
    preferences = listed.preferences(data.train)
    top = preferences.top(60)
    assert same_items(top, unseen(scores, data, 60)) > 0.999
    found = preferences.listed(40).of(np.arange(data.num_users))
    exact = scores.gather(1, torch.from_numpy(found.items).long())
    np.testing.assert_allclose(found.scores, (exact - exact[:, :1]).numpy(), rtol=2e-3, atol=1e-4)
    assert listed.report["lists"]["recall"] == 1.0
    assert "100.0% of what exact ranking finds" in say_lists(listed.report["lists"], 90, 320)
    everything = listed.preferences(sp.csr_matrix(data.train.shape, dtype=np.float32))
    assert same_items(everything.top(60), scores.topk(60).indices.numpy()) > 0.999


@pytest.mark.usefixtures("is_large")
def test_a_blend_of_factor_models_is_the_sum_of_the_standardised_scores(
    data: Interactions, teacher: Teacher, tmp_path: Path
) -> None:
    found = blend_teachers("ials=1,ideal-low=0.5", data, teacher, tmp_path, "ff", 1.0)
    members = {
        "teacher": lambda users: teacher.users[users] @ teacher.items.T,
        "ials": ials(data.train, 4.0, 0.01, 64).score_rows,
        "low": ideal_filter(data.train, 64).score_rows,
    }
    blend = Blend(members, {"teacher": 1.0, "ials": 1.0, "low": 0.5})
    total = blend.score_rows(np.arange(data.num_users))
    assert same_items(found.preferences(data.train).top(50), unseen(total, data, 50)) > 0.99
    assert list(found.report["weights"].values()) == [1.0, 1.0, 0.5]
    listed = found.preferences(data.train).listed(50).of(np.arange(data.num_users))
    exact = total.gather(1, torch.from_numpy(listed.items).long()).numpy()
    ratios = (exact[:, 0] - exact[:, 40]) / (listed.scores[:, 0] - listed.scores[:, 40])
    np.testing.assert_allclose(ratios, ratios[0], rtol=0.02)


@pytest.mark.usefixtures("is_large")
def test_auto_says_which_co_teachers_are_left_out_and_a_name_is_refused(
    data: Interactions, teacher: Teacher, tmp_path: Path
) -> None:
    found = blend_teachers("auto", data, teacher, tmp_path, "ff", 1.0)
    assert set(found.report["left_out"]) == {"turbocf", "gfcf", "ease", "itemknn"}
    assert "need scores that are inner products" in found.report["left_out"]["ease"]
    with pytest.raises(SettingError, match=r"co_teachers: 'ease': 90 users × .* items are ranked by inverted lists"):
        blend_teachers("ease", data, teacher, tmp_path, "ff", 1.0)


@pytest.mark.usefixtures("is_large")
def test_lists_are_gone_on_with_and_then_found(
    data: Interactions, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distill.methods.stored_lists, "BLOCK_USERS", 40)
    model, order = Factors(teacher.users, teacher.items), np.arange(data.num_items)
    store_lists(tmp_path / "straight", model, data.train, order, {})
    write = write_file

    def cut(path: Path, content: bytes) -> None:
        write(path, content)
        if json.loads(content).get("done") == 80:
            raise KeyboardInterrupt

    monkeypatch.setattr(distill.methods.stored_lists, "write_file", cut)
    with pytest.raises(KeyboardInterrupt):
        store_lists(tmp_path / "cut", model, data.train, order, {})
    monkeypatch.setattr(distill.methods.stored_lists, "write_file", write)
    assert open_lists(tmp_path / "cut", data.num_items) is None
    searched: list[int] = []
    search = distill.methods.item_index.ItemIndex.search

    def count(self: object, users: torch.Tensor, *rest: object, **more: object) -> object:
        searched.append(len(users))
        return search(self, users, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(distill.methods.item_index.ItemIndex, "search", count)
    store_lists(tmp_path / "cut", model, data.train, order, {})
    assert searched == [10], "the first 80 of 90 users are there"
    pairs = [open_lists(tmp_path / name, data.num_items) for name in ("straight", "cut")]
    assert pairs[0] is not None
    assert pairs[1] is not None
    np.testing.assert_array_equal(pairs[0][0].items, pairs[1][0].items)
    np.testing.assert_array_equal(pairs[0][0].scores, pairs[1][0].scores)


def test_scores_beyond_float16_are_kept_apart_and_who_is_unknown_gets_what_is_popular(
    data: Interactions, tmp_path: Path
) -> None:
    features = torch.randn(data.num_users + data.num_items, 8, generator=torch.Generator().manual_seed(0)) * 1e4
    features[3] = 0
    model = Factors(features[: data.num_users], features[data.num_users :])
    order = np.random.default_rng(0).permutation(data.num_items)
    store_lists(tmp_path / "lists", model, sp.csr_matrix(data.train.shape), order, {})
    found = open_lists(tmp_path / "lists", data.num_items)
    assert found is not None
    assert np.isfinite(found[0].scores).all()
    assert (found[0].scores[:, 0] == 0).all()
    np.testing.assert_array_equal(found[0].items[3], order[: found[0].items.shape[1]])


def test_a_blends_vectors_of_one_model_are_in_proportion_to_its_own(data: Interactions, teacher: Teacher) -> None:
    blended = Blended([(Factors(teacher.users, teacher.items), 2.0)])
    scores = blended.users(slice(0, 20)) @ blended.items.float().T
    np.testing.assert_allclose(scores.std(dim=1).numpy(), 2.0, rtol=0.01)


@pytest.mark.usefixtures("is_large")
@pytest.mark.parametrize("co_teachers", ["none", "auto"])
def test_a_whole_training_of_the_recipe_and_its_resumed_lists(
    data: Interactions, tmp_path: Path, co_teachers: str
) -> None:
    run_job(build_job("scratch", {"dim": 8, "epochs": 6, "patience": 5}), data, tmp_path / "teacher")
    from distill.run import open_run

    teacher = open_run(tmp_path / "teacher")
    given = {"dim": 4, "epochs": 5, "co_teachers": co_teachers, "num_top": 20, "num_candidates": 40, "num_hard": 10}
    job = build_job("ce+rcekd", {**given, "num_negatives": 50})
    metrics = run_job(job, data, tmp_path / "first", teacher=teacher, lists=tmp_path / "lists")
    again = run_job(job, data, tmp_path / "second", teacher=teacher, lists=tmp_path / "lists")
    made = metrics["lists"] if co_teachers == "none" else metrics["blend"]["lists"]
    assert made["length"] == 60
    assert metrics["validation"] == again["validation"]
    assert (tmp_path / "lists").exists()
