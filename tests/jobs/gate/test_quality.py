"""Quality against a teacher and against the version before, on data where the answers are known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from distill.data.interactions import Interactions
from distill.evaluation.protocol import evaluate
from distill.evaluation.significance import PairedTest
from distill.run import Run
from export.build.publish import ExportOptions, export_run
from export.bundle import Bundle, ModelRepository, open_bundle
from jobs.gate.quality import NDCG, RECALL, Comparison, compare_versions, lost_share, measure_kept
from tests.distill.toy import build_interactions

USERS, ITEMS = 24, 48


def make_data(*, later: bool = False) -> Interactions:
    """Users of two tastes; a day later the test item of before is in train, and there is another one."""
    train, validation, test = [], [], []
    for user in range(USERS):
        own = [(user * 2 + 4 * step + user % 2) % ITEMS // 2 * 2 + user % 2 for step in range(6)]
        items = list(dict.fromkeys(own))
        end = len(items) if later else len(items) - 1
        train += [(user, item) for item in items[: end - 2]]
        validation.append((user, items[end - 2]))
        test.append((user, items[end - 1]))
    return build_interactions((USERS, ITEMS), train, validation, test)


def bundle_of(data: Interactions, folder: Path, *, knows: bool, options: ExportOptions | None = None) -> Bundle:
    """A bundle whose users like all items of their own parity, or, where it knows nothing, those of the other."""
    users = np.stack([np.arange(USERS) % 2 == side for side in (0, 1)], axis=1).astype(np.float32)
    items = np.stack([np.arange(ITEMS) % 2 == side for side in (0, 1)], axis=1).astype(np.float32)
    config = {"backbone": "bprmf", "method": "ce", "dim": 2, "data": {"name": "toy", "fingerprint": data.fingerprint}}
    noise = np.random.default_rng(0).normal(scale=0.01, size=items.shape).astype(np.float32)
    run = Run(folder / "run", config, users if knows else users[:, ::-1].copy(), items + noise, {})
    repository = ModelRepository(folder / "models")
    return open_bundle(export_run(run, data, repository, "toy", options or ExportOptions(budget=0)))


def test_what_is_kept_is_of_the_bundles_own_vectors(tmp_path: Path) -> None:
    data = make_data()
    good, bad = bundle_of(data, tmp_path / "good", knows=True), bundle_of(data, tmp_path / "bad", knows=False)
    teacher = Run(tmp_path, {}, np.asarray(good.user_embeddings), np.asarray(good.item_embeddings), {})
    report = evaluate(teacher.user_embeddings, teacher.item_embeddings, data)
    known = replace(teacher, metrics={"test": report.as_dict()})
    for taught in (teacher, known):  # measured here, or as its training reported
        kept = measure_kept(good, taught, data, None)
        assert kept.share(NDCG) == pytest.approx(1, abs=1e-5)
        assert kept.student[RECALL] == pytest.approx(report.metrics[RECALL])
        assert measure_kept(bad, taught, data, None).share(RECALL) == 0


def test_versions_are_compared_on_the_users_that_both_know(tmp_path: Path) -> None:
    data = make_data()
    good, bad = bundle_of(data, tmp_path / "good", knows=True), bundle_of(data, tmp_path / "bad", knows=False)
    same, worse, better = (
        compare_versions(one, other, data, None) for one, other in ((good, good), (bad, good), (good, bad))
    )
    assert same is not None
    assert worse is not None
    assert better is not None
    assert (same.users, same.test.difference, same.certain_loss) == (USERS, 0, 0)
    assert worse.certain_loss > 0.2
    assert better.certain_loss == 0
    assert better.test.difference == -worse.test.difference > 0


def test_rows_are_matched_by_ids_and_new_ones_left_out(tmp_path: Path) -> None:
    yesterday, data = make_data(), make_data(later=True)
    order = np.random.default_rng(1).permutation(USERS)
    today = replace(
        data,
        user_ids=np.array(["new", *data.user_ids[order][1:]]),
        **{name: getattr(data, name)[order] for name in ("train", "validation", "test")},
    )
    before = bundle_of(yesterday, tmp_path / "before", knows=True)
    vectors = np.asarray(before.user_embeddings)
    run = Run(
        tmp_path,
        {"data": {"name": "toy", "fingerprint": today.fingerprint}},
        vectors[order],
        np.asarray(before.item_embeddings),
        {},
    )
    now = open_bundle(export_run(run, today, ModelRepository(tmp_path / "now"), "toy", ExportOptions(budget=0)))
    found = compare_versions(now, before, today, None)
    assert found is not None
    assert found.users == USERS - 1
    assert found.test.difference == pytest.approx(0, abs=1e-6)  # the same vectors in another order
    assert lost_share(now.user_ids, before.user_ids) == pytest.approx(1 / USERS)
    assert lost_share(now.item_ids, before.item_ids) == 0


@pytest.mark.parametrize("seen", ["train+validation", "all"])
def test_what_the_old_version_was_trained_on_is_not_to_be_found(tmp_path: Path, seen: str) -> None:
    data = make_data()
    options = ExportOptions(budget=0, seen=seen)  # type: ignore[arg-type]
    old = bundle_of(data, tmp_path / "old", knows=True, options=options)
    moved = replace(data, train=data.test, test=data.train)  # today's test items are what it learned
    new = bundle_of(moved, tmp_path / "new", knows=True)
    assert compare_versions(new, old, moved, None) is None
    assert compare_versions(new, old, replace(moved, test=data.test, train=data.train), None) is not None


def test_a_loss_is_certain_by_the_kindest_end_of_the_interval() -> None:
    def loss(low: float, high: float) -> float:
        return Comparison(PairedTest("new", "old", (low + high) / 2, low, high, 0.01, 0.01), 0.5, 10).certain_loss

    assert loss(-0.03, -0.01) == pytest.approx(0.02)
    assert loss(-0.03, 0.01) == 0
    assert Comparison(PairedTest("new", "old", -1, -1, -1, 0, 0), 0.0, 10).certain_loss == 0
