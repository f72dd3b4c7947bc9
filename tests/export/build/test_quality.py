from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from distill.data.interactions import Interactions
from distill.evaluation.protocol import Protocol, evaluate
from export.build.quality import CONVENTION, measure_bundle, measure_quality
from export.bundle import open_bundle
from tests.export.toy import write_toy


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
