"""Losses as pure functions of rows; each returns one value per row, and the caller sums."""

from __future__ import annotations

from typing import Literal

import torch

FeatureLoss = Literal["cosine", "l2"]

EPSILON = 1e-8


def feature_loss(
    inner: torch.Tensor, squared_norm: torch.Tensor, target_squared_norm: torch.Tensor, kind: FeatureLoss
) -> torch.Tensor:
    """Distance of projected student rows p from teacher rows b, from their moments.

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
