"""The entities that a feature loss compares in a step, and how much each counts."""

from __future__ import annotations

from typing import Literal

import torch

from distill.backbones.sampling import Batch

Sides = Literal["both", "users", "items"]

ITEM_WEIGHT = 0.5


def batch_entities(
    batch: Batch, num_users: int, num_entities: int, sides: Sides = "both"
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Collect the users, positives and negatives of a batch, each entity once.

    A user weighs 1; an item weighs `ITEM_WEIGHT` as a positive, as much as a negative, and twice that as both: the
    public codes halve the sum of a loss over the positives and one over the negatives.

    Args:
        batch: Users, positives and negatives.
        num_users: |U|.
        num_entities: N.
        sides: "both", "users" or "items".

    Returns:
        (entity rows, ascending, so users first, int64 of shape (B,); their weights, shape (B,); number of users).
    """
    weights = torch.zeros(num_entities, device=batch.users.device)
    if sides != "items":
        weights[batch.users] = 1.0
    if sides != "users":
        for items in (batch.positives, batch.negatives):
            role = torch.zeros_like(weights)
            role[num_users + items] = ITEM_WEIGHT
            weights += role
    entities = weights.nonzero().squeeze(1)
    return entities, weights[entities], int(torch.searchsorted(entities, num_users))
