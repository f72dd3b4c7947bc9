"""LPMF: matrix factorisation whose table passes through FreqD's low-pass filter before it scores.

Final embeddings are h(L) X with h(λ) = 1 − αλ over the user–item graph. For α < ½ the filter can be inverted, so
LPMF has the same models within reach as BPRMF; what changes is how it gets there. A gradient passes through h(L) on
its way to X, and X through h(L) on its way to the score, so that a step of gradient descent moves frequency k of the
embeddings by h(λ_k)² as much: low frequencies are learned first, and early stopping keeps more of them. It is FreqD's
stress, put into the student instead of the loss. Exported are the filtered embeddings: serving needs no graph.

Cost of a step: two sparse products of width d_s on top of BPRMF's.

References:
    FreqD, arXiv 2411.10676, for the filter; Rendle et al., UAI 2009, for the loss. With α = ½ it is LightGCN (He et
    al., SIGIR 2020) of one layer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph.adjacency import build_graph
from distill.graph.propagation import LowPass


@dataclass(frozen=True)
class LPMFSettings:
    """Settings of LPMF.

    Attributes:
        alpha: α of the filter, in (0, 1].
    """

    alpha: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise SettingError(f"alpha: {self.alpha} is outside (0, 1]; without a filter use --backbone bprmf")


class LPMF(BPRMF):
    """BPRMF with a fixed filter between its table and its scores."""

    Settings = LPMFSettings
    is_table = False

    def __init__(self, num_users: int, num_items: int, dim: int, low_pass: LowPass) -> None:
        """Draw the table like BPRMF's; `low_pass` is over the user–item graph of the training interactions."""
        super().__init__(num_users, num_items, dim)
        self.low_pass = low_pass

    @classmethod
    def build(cls, settings: LPMFSettings, data: Interactions, dim: int) -> Self:
        """Build the graph of the training interactions and draw the table."""
        return cls(data.num_users, data.num_items, dim, LowPass(build_graph(data), settings.alpha))

    def embeddings(self) -> torch.Tensor:
        """Filter the table: shape (N, d)."""
        filtered: torch.Tensor = self.low_pass(self.table)
        return filtered
