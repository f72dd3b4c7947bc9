"""A softmax over a sample: the whole one in the limit, unbiased, and no item counted twice or where it is hidden."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.methods import Teacher
from distill.methods.composition import Composition, build_method, build_method_settings
from distill.methods.cross_entropy import CrossEntropy, CrossEntropySettings
from distill.methods.sampled_softmax import (
    ExactItems,
    ItemSampler,
    Sample,
    inclusion_probabilities,
    sampled_divergence,
)
from distill.rows import mark_row_sparse
from tests.distill.toy import build_random, build_step, whole_batch

TAU = 0.7


def build(data: Interactions, given_settings: CrossEntropySettings) -> tuple[CrossEntropy, BPRMF]:
    torch.manual_seed(0)
    student = BPRMF(data.num_users, data.num_items, 4)
    with torch.no_grad():
        student.table.normal_()
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    method = CrossEntropy.build(given_settings, data, student, teacher)
    method.begin_epoch(student, np.random.default_rng(1))
    return method, student


@pytest.mark.parametrize("hide_train", [False, True])
@pytest.mark.parametrize(("num_top", "num_hard"), [(3, 0), (3, 6), (25, 25), (25, 0)])
def test_a_sample_of_all_items_gives_the_whole_loss_and_its_gradient(
    rng: np.random.Generator, hide_train: bool, num_top: int, num_hard: int
) -> None:
    data = build_random(rng)
    results = []
    for negatives in (0, data.num_items, 100 * data.num_items):
        chosen = CrossEntropySettings(
            num_top=num_top, num_hard=num_hard, hide_train=hide_train, num_negatives=negatives, temperature=TAU
        )
        method, student = build(data, chosen)
        loss = method.distillation_loss(build_step(whole_batch(data), student))
        results.append((loss, *torch.autograd.grad(loss, student.table)))
    for loss, gradient in results[1:]:
        torch.testing.assert_close(loss, results[0][0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(gradient, results[0][1], rtol=1e-5, atol=1e-5)


def test_a_marked_table_has_a_sparse_gradient_with_the_same_numbers(rng: np.random.Generator) -> None:
    data = build_random(rng)
    gradients = []
    for marked in (False, True):
        method, student = build(data, CrossEntropySettings(num_top=3, num_hard=2, num_negatives=4))
        if marked:
            mark_row_sparse(student.table)
        loss = method.distillation_loss(build_step(whole_batch(data), student))
        gradients.append(torch.autograd.grad(loss, student.table)[0])
    assert gradients[1].is_sparse
    torch.testing.assert_close(gradients[1].to_dense(), gradients[0])


def test_the_normaliser_is_right_on_average(rng: np.random.Generator) -> None:
    popularity = rng.integers(0, 20, 30)
    sampler = ItemSampler(popularity, 8)
    scores = torch.from_numpy(rng.normal(size=30))
    generator = torch.Generator().manual_seed(0)
    sums, counts = [], np.zeros(30)
    for _ in range(4000):
        sampler.shuffle(rng)
        sample = sampler.draw(generator)
        assert len(sample.items) == 8
        sums.append(float((scores[sample.items] + sample.log_weights).exp().sum()))
        counts[sample.items.numpy()] += 1
    assert np.mean(sums) == pytest.approx(float(scores.exp().sum()), rel=4 * np.std(sums) / np.mean(sums) / 4000**0.5)
    np.testing.assert_allclose(counts / 4000, inclusion_probabilities(popularity, 8), atol=0.035)


@pytest.mark.parametrize("size", [1, 5, 29, 30])
def test_inclusion_probabilities_sum_to_the_size_and_none_is_above_1(size: int) -> None:
    found = inclusion_probabilities(np.array([1000, 500, *[0] * 28]), size)
    assert found.sum() == pytest.approx(size)
    assert found.max() <= 1
    assert found.min() > 0


@settings(deadline=None, max_examples=40)
@given(
    top=st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True),
    hard=st.lists(st.integers(0, 9), max_size=5, unique=True),
    sampled=st.lists(st.integers(0, 9), min_size=1, max_size=10, unique=True),
    hidden=st.sets(st.integers(0, 9), max_size=4),
)
def test_no_item_counts_twice_or_where_it_is_hidden(
    top: list[int], hard: list[int], sampled: list[int], hidden: set[int]
) -> None:
    table = torch.randn(11, 3, generator=torch.Generator().manual_seed(1))
    sample = Sample(torch.tensor(sampled), torch.full((len(sampled),), 0.3))
    exact = [*top, *hard]
    absent = [item in hidden or item in exact[:place] for place, item in enumerate(exact)]
    kept = [item for item, is_absent in zip(exact, absent, strict=True) if not is_absent]
    listed = [item for item in top if item not in hidden]
    target = torch.tensor([[0.0 if item in hidden else 1 / max(1, len(listed)) for item in top]])
    places = [place for place, item in enumerate(sampled) if item in hidden or item in exact]
    owned = (torch.zeros(len(places), dtype=torch.int64), torch.tensor(places, dtype=torch.int64))
    items = ExactItems(torch.tensor([exact]), torch.tensor([absent]), target)
    rest = [item for item in sampled if item not in hidden and item not in exact]
    if not kept and not rest:
        return
    found = sampled_divergence(table, torch.tensor([0]), 1, items, sample, owned, TAU)
    scores = table[1:] @ table[0] / TAU
    normalizer = torch.cat([scores[kept], scores[rest] + 0.3]).logsumexp(dim=0)
    expected = sum(float(normalizer - scores[item] + np.log(1 / len(listed))) / len(listed) for item in listed)
    if not listed:
        expected = float(normalizer)
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_parts_of_a_composition_share_what_the_student_puts_first(rng: np.random.Generator) -> None:
    data = build_random(rng)
    torch.manual_seed(0)
    student = BPRMF(data.num_users, data.num_items, 4)
    teacher = Teacher(torch.randn(data.num_users + data.num_items, 9), data.num_users)
    given_settings = {"num_negatives": 6, "num_hard": 5, "num_top": 4, "num_candidates": 8, "in_turns": True}
    chosen = build_method_settings("ce+rcekd", given_settings)
    method = build_method("ce+rcekd", chosen, data, student, teacher)
    assert isinstance(method, Composition)
    assert [name for name in method.state_dict() if "_lists" in name] == ["parts.1.ranking._lists"]
    method.begin_epoch(student, np.random.default_rng(0))
    loss = method.distillation_loss(build_step(whole_batch(data), student))
    assert loss is not None
    assert bool(torch.isfinite(loss))


def test_a_restored_method_draws_what_the_straight_one_does(rng: np.random.Generator) -> None:
    data = build_random(rng)
    chosen = CrossEntropySettings(num_top=3, num_hard=4, num_negatives=6, rank_every=3)
    method, student = build(data, chosen)
    restored, _ = build(data, chosen)
    with torch.no_grad():
        student.table.normal_()
    method.begin_epoch(student, np.random.default_rng(3))
    restored.load_state_dict(method.state_dict())
    losses = []
    for one in (method, restored):
        one.begin_epoch(student, np.random.default_rng(5))
        losses.append(one.distillation_loss(build_step(whole_batch(data), student)))
    assert torch.equal(*losses)
