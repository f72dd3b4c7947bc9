from __future__ import annotations

from typing import Any

import pytest

from tests.distill.distributed.traffic import formula

STEPS = ("bpr", "freqd", "ce, all items", "ce, few items")


@pytest.mark.parametrize("step", STEPS)
def test_a_step_of_two_ranks_is_that_of_one_process_on_their_batches_together(found: Any, step: str) -> None:
    assert found[step]["step"] > 0.01
    assert found[step]["error"] < 1e-5


def test_a_loss_that_is_not_scaled_by_the_ranks_takes_half_a_step(found: Any) -> None:
    unscaled = found["bpr, loss not scaled"]
    assert unscaled["error"] == pytest.approx(unscaled["step"] / 2, rel=1e-3)


@pytest.mark.parametrize("step", STEPS)
def test_a_step_sends_what_the_formula_says(found: Any, step: str) -> None:
    for rank, sent in enumerate(found[step]["sent"]):
        assert found[step]["asked"][rank]["foreign"] > 10
        assert 0 <= sum(sent.values()) - formula(found[step], rank, 4 * 8) <= 64


def test_rows_are_exchanged_and_sums_of_bags_are_scattered(found: Any) -> None:
    for rank, sent in enumerate(found["bpr"]["sent"]):
        assert set(sent) == {f"all_to_all_single {kind}" for kind in ("float32", "int32", "int64")}
        both = found["bpr"]["asked"][rank]["foreign"] + found["bpr"]["asked"][1 - rank]["foreign"]
        assert sent["all_to_all_single float32"] == 4 * 8 * both  # rows for the other rank, gradients of its rows
    for sent in found["freqd"]["sent"]:
        assert any("reduce_scatter" in name for name in sent)


def test_no_rank_holds_more_than_its_half(found: Any) -> None:
    ranks, whole = found["memory"]["ranks"], found["memory"]["whole"]
    assert sum(ranks) == whole
    assert max(ranks) <= whole / 2 + 4 * 9
