from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import distill.training.row_adam
from distill.rows import mark_row_sparse, sum_into_rows
from distill.training.row_adam import RowAdam

SIZE, DIM, RATE, DECAY = 20, 4, 0.1, 0.999


def build_table(*, marked: bool = True, seed: int = 0) -> nn.Parameter:
    table = nn.Parameter(torch.randn(SIZE, DIM, generator=torch.Generator().manual_seed(seed)))
    if marked:
        mark_row_sparse(table)
    return table


def move(optimizer: RowAdam, table: torch.Tensor, rows: torch.Tensor, values: torch.Tensor) -> None:
    table.grad = sum_into_rows((SIZE, DIM), [(rows, values)], sparse=True)
    optimizer.step()


def test_rows_move_as_the_formula_says_and_others_stay(rng: np.random.Generator) -> None:
    table = build_table()
    optimizer = RowAdam([table], lr=RATE, weight_decay=0.3, fused=True)
    expected = table.detach().numpy().astype(np.float64)
    moments, last = np.zeros(SIZE), np.zeros(SIZE)
    for step in range(1, 8):
        rows = rng.integers(SIZE - 5, size=6)
        values = rng.normal(size=(6, DIM)).astype(np.float32)
        move(optimizer, table, torch.from_numpy(rows), torch.from_numpy(values))
        for row in np.unique(rows):
            passed = step - last[row]
            gradient = values[rows == row].sum(axis=0) + 0.3 * passed * expected[row]
            moments[row] = DECAY**passed * moments[row] + (1 - DECAY) * np.square(gradient).mean()
            expected[row] -= RATE * gradient / (np.sqrt(moments[row] / (1 - DECAY**step)) + 1e-8)
            last[row] = step
    np.testing.assert_allclose(table.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(table[SIZE - 5 :], build_table()[SIZE - 5 :])


def test_a_dense_gradient_is_one_of_all_rows(rng: np.random.Generator) -> None:
    tables = [build_table(), build_table()]
    optimizers = [RowAdam([table], lr=RATE, weight_decay=0.1, fused=True) for table in tables]
    for _ in range(3):
        values = torch.from_numpy(rng.normal(size=(SIZE, DIM)).astype(np.float32))
        move(optimizers[0], tables[0], torch.arange(SIZE), values)
        tables[1].grad = values
        optimizers[1].step()
    assert torch.equal(*tables)


@pytest.mark.parametrize("gap", [20, 200])
def test_a_rare_row_goes_as_far_as_with_adam_at_the_same_rate(gap: int) -> None:
    ways = []
    for marked in (True, False):
        table = build_table(marked=marked)
        start = table.detach().clone()
        optimizer = RowAdam([table], lr=0.01, fused=True)
        for step in range(30 * gap):
            values = torch.ones(1, DIM) * (step % gap == 0)
            gradient = sum_into_rows((SIZE, DIM), [(torch.tensor([3]), values)], sparse=marked)
            table.grad = (
                gradient
                if not marked or step % gap == 0
                else sum_into_rows((SIZE, DIM), [(torch.tensor([4]), torch.zeros(1, DIM))], sparse=True)
            )
            optimizer.step()
        ways.append(float((start - table.detach())[3].mean()))
    assert ways[0] == pytest.approx(ways[1], rel=0.1)


def test_other_parameters_are_moved_by_adam(rng: np.random.Generator) -> None:
    weights = [nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3, 2))]
    optimizers: list[torch.optim.Optimizer] = [
        RowAdam([build_table(), weights[0]], lr=RATE, weight_decay=0.1, fused=True),
        torch.optim.Adam([weights[1]], lr=RATE, weight_decay=0.1, fused=True),
    ]
    for _ in range(4):
        values = torch.from_numpy(rng.normal(size=(3, 2)).astype(np.float32))
        for weight, optimizer in zip(weights, optimizers, strict=True):
            weight.grad = values.clone()
            optimizer.step()
    assert torch.equal(*weights)


def test_steps_can_be_counted_for_ever(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = []
    for most in (64, 2**23):
        monkeypatch.setattr(distill.training.row_adam, "MOST_STEPS", most)
        table = build_table()
        optimizer = RowAdam([table], lr=RATE, betas=(0.9, 0.5), weight_decay=0.01, fused=True)
        generator = np.random.default_rng(5)
        for _ in range(200):
            rows = torch.from_numpy(generator.integers(SIZE, size=2))
            move(optimizer, table, rows, torch.from_numpy(generator.normal(size=(2, DIM)).astype(np.float32)))
        assert optimizer.state[table]["step"] <= most
        tables.append(table)
    torch.testing.assert_close(*tables)


def test_a_loaded_state_goes_on_as_the_saved_one_would(rng: np.random.Generator) -> None:
    def advance(optimizer: RowAdam, table: nn.Parameter, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(5):
            rows = torch.randint(SIZE, (6,), generator=generator)
            move(optimizer, table, rows, torch.randn(6, DIM, generator=generator))

    one = build_table()
    optimizer = RowAdam([one], lr=RATE, weight_decay=0.1, fused=True)
    advance(optimizer, one, 1)
    two = nn.Parameter(one.detach().clone())
    mark_row_sparse(two)
    other = RowAdam([two], lr=RATE, weight_decay=0.1, fused=True)
    other.load_state_dict(optimizer.state_dict())
    other.state = {two: {key: value.clone() for key, value in other.state[two].items()}}  # type: ignore[assignment]
    for pair in ((optimizer, one), (other, two)):
        advance(*pair, seed=2)
    assert torch.equal(one, two)
