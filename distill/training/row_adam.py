"""RowAdam: Adam for tables of which a step touches few rows, at a cost that does not grow with the table.

Of a table that `mark_row_sparse` marked, step t moves the rows x that have a gradient g, k steps after the last one:

    g ← g + k λ x,    v ← β₂ᵏ v + (1 − β₂) mean(g²),    x ← x − η g / (√(v / (1 − β₂ᵗ)) + ε).

It is what Adam comes to where gradients are rare:

- v decays by the steps that passed, not by those that touched the row. A row with a gradient in one step of a hundred
  moves by η √100 then, as with Adam. Counted by touches (torch's `SparseAdam`) it moves by η: the same learning rate is
  ten times too small.
- Between two touches Adam's momentum moves a row by (1 − β₁)(1 + β₁ + β₁² + …) = 1 times g / √v. Here that comes at
  once, and no first moment is kept.
- The L2 of the steps between, λ x in each, is made up for at the touch: what is minimised is the same.
- v is one number a row, not d, so it changes no direction of g. A table and two numbers a row are all that is kept.

Floor of a step that touches r rows: 4 r d bytes of gradient read, 8 r d of the table read and written.

References:
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
    Mudigere et al., "Software-Hardware Co-design for Fast and Scalable Training of Deep Learning Recommendation
    Models", ISCA 2022, for one second moment a row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from distill.rows import distinct_rows, is_row_sparse

MOST_STEPS = 2**23
"""After so many, steps are counted on from half: float32, which torch makes of any state that it loads, holds them."""


class RowAdam(torch.optim.Adam):
    """Fused Adam, but by rows where a parameter is marked."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move the touched rows of marked tables, and all other parameters by Adam.

        Args:
            closure: Computes the loss anew; not for marked tables.
        """
        for group in self.param_groups:
            for parameter in group["params"]:
                if is_row_sparse(parameter) and parameter.grad is not None:
                    self._move_rows(parameter, *_by_row(parameter.grad), group)
                    parameter.grad = None
        return super().step(closure)

    def _move_rows(
        self, table: torch.Tensor, rows: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any]
    ) -> None:
        state = self.state[table]
        if not state:
            numbers = table.new_zeros(len(table)), table.new_zeros(len(table))
            state.update(step=torch.zeros(()), second_moment=numbers[0], last_step=numbers[1])
        decay = group["betas"][1]
        step = self._count(state)
        gaps = step - state["last_step"][rows]
        values = table.index_select(0, rows)
        if group["weight_decay"]:
            gradient = torch.addcmul(gradient, values, gaps[:, None], value=group["weight_decay"])
        moment = state["second_moment"][rows] * decay**gaps + (1 - decay) * gradient.square().mean(dim=1)
        state["second_moment"][rows], state["last_step"][rows] = moment, step
        rates = -group["lr"] / (moment / (1 - decay**step)).sqrt_().add_(group["eps"])
        table.index_copy_(0, rows, values.addcmul_(gradient, rates[:, None]))

    @staticmethod
    def _count(state: dict[str, Any]) -> float:
        if state["step"] >= MOST_STEPS:
            state["step"] -= MOST_STEPS / 2
            state["last_step"] -= MOST_STEPS / 2
        state["step"] += 1
        return float(state["step"])


def _by_row(gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of a table with a gradient, each once, int64 of shape (r,), and theirs, shape (r, d)."""
    if not gradient.is_sparse:
        return torch.arange(len(gradient), device=gradient.device), gradient
    rows, places = distinct_rows(gradient._indices()[0], len(gradient))
    values = gradient._values()
    return rows, values.new_zeros(len(rows), values.shape[1]).index_add_(0, places, values)
