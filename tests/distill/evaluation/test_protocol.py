from __future__ import annotations

import numpy as np
import pytest
import pytrec_eval
import torch

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.metrics import METRICS, find_hits
from distill.evaluation.protocol import Average, Mask, Protocol, evaluate, evaluate_scores
from distill.evaluation.ranking import rank_items
from tests.distill.toy import build_interactions, build_random, random_embeddings


def test_a_perfect_model_of_the_checkerboard_scores_1(checkerboard: Interactions) -> None:
    parity = torch.eye(2)[torch.arange(24) % 2]
    own = torch.eye(24)
    users, items = torch.cat([parity, own], dim=1), torch.cat([parity, own], dim=1)
    protocol = Protocol(mask="train+validation", cutoffs=(1, 10))
    report = evaluate(users, items, checkerboard, protocol)
    for metric in ("Recall", "NDCG", "HitRate", "MRR"):
        assert report.metrics[f"{metric}@1"] == 1.0
        assert report.metrics[f"{metric}@10"] == 1.0
    assert report.metrics["Precision@10"] == pytest.approx(0.1)
    assert report.metrics["Coverage@1"] == 1.0
    assert report.num_users == 24


def test_coverage_and_popularity_by_hand() -> None:
    train = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 2)]
    data = build_interactions((3, 5), train, test=[(0, 3), (1, 3), (2, 1)])
    users = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    items = torch.tensor([[5.0, 5.0], [4.0, 4.0], [3.0, 0.0], [2.0, 1.0], [1.0, 0.0]])
    report = evaluate(users, items, data, Protocol(cutoffs=(1, 2)))
    # Users 0 and 1 get items 2 and 3 (taken 1 and 0 times), user 2 gets 1 and 3 (2 and 0 times).
    assert report.metrics["Coverage@1"] == pytest.approx(2 / 5)
    assert report.metrics["Coverage@2"] == pytest.approx(3 / 5)
    assert report.metrics["Popularity@1"] == pytest.approx((1 + 1 + 2) / 3)
    assert report.metrics["Popularity@2"] == pytest.approx((1 + 0 + 1 + 0 + 2 + 0) / 6)
    assert report.metrics["Recall@1"] == pytest.approx(1 / 3)
    assert report.metrics["Recall@2"] == 1.0


@pytest.mark.parametrize("chunk_bytes", [1, 4 * 25 * 7, 10**9])
def test_chunk_size_never_changes_the_answer(rng: np.random.Generator, chunk_bytes: int) -> None:
    data = build_random(rng)
    embeddings = random_embeddings(data, rng)
    assert evaluate(*embeddings, data, chunk_bytes=chunk_bytes) == evaluate(*embeddings, data)


@pytest.mark.parametrize("mask", ["train", "train+validation"])
def test_masked_items_are_never_recommended(rng: np.random.Generator, mask: Mask) -> None:
    data = build_random(rng)
    masked = data.train if mask == "train" else (data.train + data.validation).tocsr()
    users = np.arange(data.num_users)
    ranked = rank_items(*random_embeddings(data, rng), masked, users, 10)
    assert not find_hits(ranked, masked, users).any()
    found_validation = find_hits(ranked, data.validation, users).any()
    assert found_validation == (mask == "train")
    assert all(len(set(row)) == 10 for row in ranked.tolist())


def test_over_all_users_equals_a_direct_evaluation(rng: np.random.Generator) -> None:
    data = build_random(rng)
    embeddings = random_embeddings(data, rng)
    direct = evaluate(*embeddings, data, Protocol(average="all"))
    derived = evaluate(*embeddings, data).over_all_users(data.num_users)
    assert derived.protocol == direct.protocol
    assert derived.num_users == direct.num_users == data.num_users
    assert derived.metrics == pytest.approx(dict(direct.metrics), abs=1e-12)
    assert direct.metrics["Recall@20"] == pytest.approx(evaluate(*embeddings, data).metrics["Recall@20"] * 20 / 30)


def test_scores_of_any_kind_are_evaluated_as_embeddings_are(rng: np.random.Generator) -> None:
    data = build_random(rng)
    users, items = random_embeddings(data, rng)
    protocol = Protocol(average="all", cutoffs=(5,))
    report = evaluate_scores(lambda rows: users[torch.from_numpy(rows)] @ items.T, data, protocol)
    assert report == evaluate(users, items, data, protocol)


@pytest.mark.parametrize("average", ["with-relevant", "all"])
def test_a_report_keeps_the_values_it_averaged(rng: np.random.Generator, average: Average) -> None:
    data = build_random(rng)
    report = evaluate(*random_embeddings(data, rng), data, Protocol(average=average, cutoffs=(5, 10)))
    np.testing.assert_array_equal(report.users, np.flatnonzero(np.diff(data.test.indptr)))
    assert set(report.per_user) == {f"{name}@{k}" for name in METRICS for k in (5, 10)}
    for name, values in report.per_user.items():
        assert values.shape == report.users.shape
        assert values.sum() / report.num_users == pytest.approx(report.metrics[name])
    assert report.over_all_users(data.num_users).per_user is report.per_user


@pytest.mark.parametrize("mask", ["train", "train+validation"])
@pytest.mark.parametrize("average", ["with-relevant", "all"])
def test_golden_against_pytrec_eval(rng: np.random.Generator, mask: Mask, average: Average) -> None:
    data = build_random(rng, num_users=50, num_items=40, taken=12)
    users, items = random_embeddings(data, rng)
    hidden = data.train.toarray() + (data.validation.toarray() if mask == "train+validation" else 0)
    scores = (users @ items.T).double().numpy()
    judgements = {f"u{u}": {f"i{i}": 1 for i in data.test[u].indices} for u in range(50) if data.test[u].nnz}
    run = {name: {f"i{i}": scores[int(name[1:]), i] for i in np.flatnonzero(hidden[int(name[1:])] == 0)}
           for name in judgements}  # fmt: skip
    found = pytrec_eval.RelevanceEvaluator(
        judgements, {"recall.5,10", "ndcg_cut.5,10", "P.5,10", "success.5,10"}
    ).evaluate(run)
    report = evaluate(users, items, data, Protocol("test", mask, average, (5, 10)))
    divisor = 50 if average == "all" else len(judgements)
    for ours, theirs in {"Recall": "recall", "NDCG": "ndcg_cut", "Precision": "P", "HitRate": "success"}.items():
        for k in (5, 10):
            expected = sum(row[f"{theirs}_{k}"] for row in found.values()) / divisor
            assert report.metrics[f"{ours}@{k}"] == pytest.approx(expected, abs=1e-9)


def test_the_report_states_its_convention(rng: np.random.Generator) -> None:
    data = build_random(rng)
    report = evaluate(*random_embeddings(data, rng), data, Protocol("test", "train+validation", "all", (5,)))
    stated = report.as_dict()
    assert stated["convention"] == (
        "full ranking, test items relevant, train+validation items masked, mean over all users"
    )
    assert stated["num_users"] == 30
    assert stated["Recall@5"] == round(report.metrics["Recall@5"], 6)


def test_a_mask_that_hides_what_is_looked_for_is_refused() -> None:
    with pytest.raises(SettingError, match="hides the very items"):
        Protocol(split="validation", mask="train+validation")


@pytest.mark.parametrize("cutoffs", [(), (0,), (10, -1)])
def test_cutoffs_below_1_are_refused(cutoffs: tuple[int, ...]) -> None:
    with pytest.raises(SettingError, match="cutoffs"):
        Protocol(cutoffs=cutoffs)


def test_a_cutoff_beyond_the_catalogue_and_an_empty_split_are_refused(rng: np.random.Generator) -> None:
    data = build_interactions((2, 4), train=[(0, 0)], validation=[(0, 1)])
    embeddings = random_embeddings(data, rng)
    with pytest.raises(SettingError, match="10 exceeds the 4 items of data set 'toy'"):
        evaluate(*embeddings, data, Protocol("validation", cutoffs=(10,)))
    with pytest.raises(SettingError, match="no test interactions"):
        evaluate(*embeddings, data, Protocol("test", cutoffs=(2,)))


def test_a_model_that_says_nothing_is_not_rewarded_for_the_order_of_the_file() -> None:
    """Everybody's relevant items are the first of the file, as where items stand by popularity."""
    users, items = 20, 2000
    held_out = [(user, item) for user in range(users) for item in range(20)]
    data = build_interactions((users, items), [(user, 1999) for user in range(users)], test=held_out)
    silent = torch.zeros(users, 4), torch.ones(items, 4)
    for report in (evaluate(*silent, data), evaluate_scores(lambda rows: np.zeros((len(rows), items)), data)):
        assert report.metrics["Recall@20"] <= 0.1, "of 20 in 2,000 drawn ones 0.01 are expected"
