"""What the feature methods share: the entities that are compared in a step, and the distance of their rows.

`feature_loss` is the distance of rows that are projected already. `linear_feature_loss` is that of a linear projector,
forward and backward in one pass over the teacher's rows. With P(a) = W a, the moments of a projected row are ⟨W a, b⟩ =
a · (Wᵀ b) and ‖W a‖² = a · (WᵀW) a, so that no d_t-wide student row is ever formed. The loss of a row depends on its
own moments alone: its gradient is known as soon as they are, and the teacher's rows, gathered once, serve both
products.

Rows are padded with rows of weight 0 to a multiple of `ROWS_STEP`, because a library that compiles a kernel for each
shape (oneDNN, for bfloat16) would otherwise do so in every step.

Floor of a call of it with B rows: 4 B d_t bytes read and written once by the gather (half of it in bfloat16), and
4 B d_s d_t floating-point operations in two products, Wᵀ b and the gradient of W.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F

from distill.backbones.sampling import Batch

FeatureLoss = Literal["cosine", "l2"]
Sides = Literal["both", "users", "items"]
EPSILON = 1e-8
ITEM_WEIGHT = 0.5
ROWS_STEP = 512


def batch_entities(batch: Batch, num_users: int, sides: Sides = "both") -> tuple[torch.Tensor, torch.Tensor, int]:
    """Collect the users, positives and negatives of a batch, each entity once.

    A user weighs 1; an item weighs `ITEM_WEIGHT` as a positive, as much as a negative, and twice that as both: the
    public codes halve the sum of a loss over the positives and one over the negatives.

    Args:
        batch: Users, positives and negatives.
        num_users: |U|.
        sides: "both", "users" or "items".

    Returns:
        (entity rows, ascending, so users first, int64 of shape (B,); their weights, shape (B,); number of users).
    """
    users = torch.unique(batch.users if sides != "items" else batch.users[:0])
    roles = [torch.unique(items if sides != "users" else items[:0]) for items in (batch.positives, batch.negatives)]
    items, num_roles = torch.unique(torch.cat(roles), return_counts=True)
    weights = torch.cat([torch.ones(len(users), device=users.device), ITEM_WEIGHT * num_roles])
    return torch.cat([users, num_users + items]), weights, len(users)


def feature_loss(
    inner: torch.Tensor, squared_norm: torch.Tensor, target_squared_norm: torch.Tensor, kind: FeatureLoss
) -> torch.Tensor:
    """Compute the distance of projected student rows p from teacher rows b, from their moments.

    "l2" is ‖p − b‖² = ‖p‖² − 2⟨p, b⟩ + ‖b‖², for which Theorem 1 of FreqD (arXiv 2411.10676) holds literally;
    "cosine" is 1 − ⟨p, b⟩ / (‖p‖ ‖b‖), the public code's shipped choice. A zero row has cosine 0.

    Args:
        inner: ⟨p, b⟩, shape (B,).
        squared_norm: ‖p‖², shape (B,).
        target_squared_norm: ‖b‖², shape (B,).
        kind: "cosine" or "l2".

    Returns:
        Shape (B,).
    """
    if kind == "l2":
        return squared_norm - 2.0 * inner + target_squared_norm
    return 1.0 - inner * torch.rsqrt((squared_norm * target_squared_norm).clamp_min(EPSILON**2))


def strongest_directions(blocks: Iterable[torch.Tensor], rank: int, kind: FeatureLoss) -> torch.Tensor:
    """Find the `rank` directions that hold the most of the energy of rows.

    For a projected row in their span ⟨p, b⟩ is the inner product of the coordinates. It takes N d_t² operations.

    Args:
        blocks: Teacher rows b, shape (N, d_t) together.
        rank: r < d_t.
        kind: "l2" counts energy ‖b‖², "cosine" counts every row alike.

    Returns:
        Shape (d_t, r), orthonormal, the direction with the most energy last.

    References:
        Eckart and Young, "The approximation of one matrix by another of lower rank", Psychometrika 1936.
    """
    gram = torch.zeros(())
    for rows in blocks:
        counted = F.normalize(rows) if kind == "cosine" else rows
        gram = gram + (counted.T @ counted).double()
    directions: torch.Tensor = torch.linalg.eigh(gram).eigenvectors[:, -rank:].float()
    return directions


def linear_feature_loss(
    rows: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    target_norms: torch.Tensor,
    entities: torch.Tensor,
    row_weights: torch.Tensor,
    kind: FeatureLoss,
) -> torch.Tensor:
    """Compute Σ_i w_i D(W a_i, b_i) over the batch: what `feature_loss` of a `LinearProjector` sums to.

    Args:
        rows: a, the student's rows, shape (B, d_s); differentiable.
        weight: W, shape (d_t, d_s); differentiable.
        targets: Teacher rows, float32 or bfloat16, shape (N, d_t).
        target_norms: Their squared norms, float32, shape (N,).
        entities: Which of them each row is compared with, int64 of shape (B,).
        row_weights: w, shape (B,).
        kind: "cosine" or "l2".

    Returns:
        A scalar.
    """
    apply: Callable[..., torch.Tensor] = _LinearFeatureLoss.apply
    return apply(rows, weight, targets, target_norms, entities, row_weights, kind)


class _LinearFeatureLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        target_norms: torch.Tensor,
        entities: torch.Tensor,
        row_weights: torch.Tensor,
        kind: FeatureLoss,
    ) -> torch.Tensor:
        count = len(rows)
        padding = -count % ROWS_STEP
        rows = F.pad(rows, (0, 0, 0, padding))
        row_weights, entities = F.pad(row_weights, (0, padding)), F.pad(entities, (0, padding))
        gathered = targets.index_select(0, entities)
        pulled = (gathered @ weight.to(targets.dtype)).to(rows.dtype)
        spread = rows @ (weight.T @ weight)
        inner, squared = (rows * pulled).sum(dim=1), (rows * spread).sum(dim=1)
        losses, by_inner, by_squared = _losses_and_slopes(inner, squared, target_norms[entities], kind)
        outer = rows * (row_weights * by_inner)[:, None]
        slopes = (2.0 * row_weights * by_squared)[:, None]
        weight_gradient = (outer.to(targets.dtype).T @ gathered).to(rows.dtype)
        weight_gradient += (rows.T @ (slopes * rows)) @ weight.T
        rows_gradient = pulled.mul_((row_weights * by_inner)[:, None]).add_(spread.mul_(slopes))
        ctx.save_for_backward(rows_gradient[:count], weight_gradient.T)
        return row_weights @ losses

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows_gradient, weight_gradient = ctx.saved_tensors
        return rows_gradient * gradients[0], weight_gradient * gradients[0], None, None, None, None, None


def _losses_and_slopes(
    inner: torch.Tensor, squared: torch.Tensor, target_norms: torch.Tensor, kind: FeatureLoss
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute each row's loss, and its derivatives by ⟨p, b⟩ and ‖p‖², (B,) each."""
    losses = feature_loss(inner, squared, target_norms, kind)
    if kind == "l2":
        return losses, torch.full_like(inner, -2.0), torch.ones_like(inner)
    product = squared * target_norms
    scale = torch.rsqrt(product.clamp_min(EPSILON**2))
    by_squared = (0.5 * inner * scale / squared).masked_fill(product < EPSILON**2, 0.0)
    return losses, -scale, by_squared
