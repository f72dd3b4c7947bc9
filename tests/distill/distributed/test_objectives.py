from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

STEPS = ("bpr", "freqd", "ce, all items", "ce, few items")


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_two_ranks_is_that_of_one_process_on_their_batches_together(found: Any, step: str) -> None:
    assert found[step]["step"] > 0.01
    assert found[step]["error"] < 1e-5


def test_a_loss_that_is_not_scaled_by_the_ranks_takes_half_a_step(found: Any) -> None:
    unscaled = found["bpr, loss not scaled"]
    assert unscaled["error"] == pytest.approx(unscaled["step"] / 2, rel=1e-3)


@pytest.mark.parametrize("step", ["bpr", "ce, all items", "ce, few items"])
def test_rows_cost_what_the_formula_says(found: Any, step: str) -> None:
    row = 4 * 8
    for rank, sent in enumerate(found[step]["sent"]):
        asked, other = found[step]["asked"][rank], found[step]["asked"][1 - rank]
        assert sent["all_to_all_single float32"] == row * (other["foreign"] + asked["foreign"])  # rows, gradients
        assert sent["all_to_all_single int32"] == 4 * asked["answers"]
        assert 0 <= sent["all_to_all_single int64"] - 8 * asked["foreign"] <= 64  # and how long the messages are
        assert set(sent) == {f"all_to_all_single {kind}" for kind in ("float32", "int32", "int64")}


def test_bags_cost_what_the_formula_says(found: Any) -> None:
    row, step = 4 * 8, found["freqd"]
    longest = max(asked["answers"] for asked in step["asked"])
    for asked, sent in zip(step["asked"], step["sent"], strict=True):
        assert sent["all_to_all_single float32"] == 4 * asked["foreign"]  # coefficients
        assert 0 <= sent["all_to_all_single int64"] - 8 * asked["foreign"] <= 64
        assert sent["all_to_all_single int32"] == 4 * longest
        sums = [size for name, size in sent.items() if name.startswith(("reduce_scatter", "_reduce_scatter"))]
        assert sums == [row * longest]
        gathered = {name: size for name, size in sent.items() if "all_gather" in name}
        assert sorted(gathered.values()) == sorted([row * longest, 16 * step["told"]])  # gradients; items of the batch
        assert sent["all_reduce float32"] == step["projectors"]


def test_no_rank_holds_more_than_its_half(found: Any) -> None:
    ranks, whole = found["memory"]["ranks"], found["memory"]["whole"]
    assert sum(ranks) == whole
    assert max(ranks) <= whole / 2 + 4 * 9


def test_candidates_leave_out_what_is_listed_or_seen() -> None:
    from distill.distributed.objectives import candidate_divergence
    from distill.methods.responses import HIDDEN_SCORE

    top, sampled = torch.tensor([[1.0, 0.5]]), torch.tensor([[1.0, 3.0, -1.0]])
    targets = torch.tensor([[0.3, HIDDEN_SCORE]])
    hidden = torch.tensor([0, 0]), torch.tensor([0, 1])
    loss = candidate_divergence(top, sampled, targets, hidden, float(np.log(7.0)))
    assert loss.item() == pytest.approx(np.log(np.exp(1.0) + 7.0 * np.exp(-1.0)) - 1.0, rel=1e-5)
