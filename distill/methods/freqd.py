"""FreqD: feature distillation through a low-pass polynomial graph filter.

    total = base + β · Σ_i w_i · D( h(L) P(X_s) [i], h(L) X_t [i] )

over the users, positives and negatives of a batch (each entity once, items weighted one half, as in the public
code). With D = l2 and w = 1 the sum over all entities is Σ_k h(λ_k)² ‖u_kᵀ(X_t − P(X_s))‖² (arXiv 2411.10676).

Cost of a step. The teacher's side h(L) X_t is computed once, before training. The student's side is an
embedding bag of width d_s over the batch's neighbours when the filter comes first, or when a linear projector
commutes with it; only the teacher's filtered rows are d_t wide, and they are read once forward and once backward.
With edge dropout the teacher's rows are filtered anew from their neighbours, by the same dropped graph.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.filters import FilterRows, GraphFilter, linear_coefficients, quadratic_coefficients
from distill.graph import bipartite_adjacency, cooccurrence_adjacency, symmetric_normalization
from distill.losses import feature_loss
from distill.methods.base import Method, MethodSettings, Order, Teacher, require_teacher
from distill.projector import build_projector, row_moments
from distill.sampling import Batch

PUBLISHED_ALPHA = {"bipartite": 0.2, "cooccurrence": 0.5}
PUBLISHED_ORDER: dict[str, Order] = {"bipartite": "filter-first", "cooccurrence": "projector-first"}
PUBLISHED_KEEP_PROB = {"bipartite": 1.0, "cooccurrence": 0.5}
ITEM_WEIGHT = 0.5


def complete(settings: MethodSettings) -> MethodSettings:
    """Fill in the published values of the chosen variant (the public code of 2024-10 and 2025-04)."""
    alpha = PUBLISHED_ALPHA[settings.variant] if settings.alpha is None else settings.alpha
    coefficients = settings.coefficients
    if coefficients is None:
        make = linear_coefficients if settings.filter == "linear" else quadratic_coefficients
        coefficients = make(alpha)
    return replace(
        settings,
        alpha=alpha,
        coefficients=coefficients,
        order=settings.order or PUBLISHED_ORDER[settings.variant],
        keep_prob=PUBLISHED_KEEP_PROB[settings.variant] if settings.keep_prob is None else settings.keep_prob,
    )


def build_graph_filter(settings: MethodSettings, data: Interactions) -> GraphFilter:
    """Build h(L) over the training graph of the chosen variant.

    Args:
        settings: Completed settings.
        data: Its training split is the graph.

    Returns:
        The filter over all N entities, users first.
    """
    if settings.variant == "bipartite":
        adjacency = bipartite_adjacency(data.train)
    else:
        adjacency = cooccurrence_adjacency(data.train, settings.num_neighbors, reference=settings.reference)
    return GraphFilter(symmetric_normalization(adjacency), settings.coefficients or (1.0,))


class FreqD(Method):
    """Feature distillation seen by frequency; with h = 1 it is plain feature distillation."""

    def __init__(
        self, settings: MethodSettings, student: Backbone, teacher: Teacher, graph_filter: GraphFilter
    ) -> None:
        """Filter the teacher once and make a projector for users and one for items.

        Args:
            settings: Completed settings.
            student: The backbone to be distilled into.
            teacher: Final features, shape (N, d_t).
            graph_filter: h(L) over all N entities.
        """
        super().__init__()
        self.settings = settings
        self.num_users = student.num_users
        self.user_projector = build_projector(settings.projector, student.dim, teacher.dim)
        self.item_projector = build_projector(settings.projector, student.dim, teacher.dim)
        self._filter = graph_filter
        self._drops_edges = (settings.keep_prob or 1.0) < 1.0
        targets = teacher.features
        if not self._drops_edges:
            targets = torch.from_numpy(graph_filter.filter_all(np.asarray(targets)))
        self.register_buffer("_targets", targets, persistent=False)
        self.register_buffer("_target_norms", targets.square().sum(dim=1), persistent=False)
        self._targets: torch.Tensor
        self._target_norms: torch.Tensor

    @classmethod
    def build(cls, settings: MethodSettings, data: Interactions, student: Backbone, teacher: Teacher | None) -> FreqD:
        """Build the graph, the filter and the filtered teacher.

        Raises:
            SettingError: There is no teacher.
        """
        teacher = require_teacher(teacher, "freqd")
        settings = complete(settings)
        return cls(settings, student, teacher, build_graph_filter(settings, data))

    def distillation_loss(self, batch: Batch, student: Backbone, generator: torch.Generator) -> torch.Tensor:
        """β · the weighted sum over the batch's entities: a scalar."""
        users = torch.unique(batch.users)
        items = torch.cat([torch.unique(batch.positives), torch.unique(batch.negatives)])
        entities = torch.cat([users, self.num_users + items])
        rows = self._filter.rows(entities, keep_prob=self.settings.keep_prob or 1.0, generator=generator)
        if self._drops_edges:
            with torch.no_grad():
                targets = rows.apply(self._targets)
                target_norms = targets.square().sum(dim=1)
        else:
            targets, target_norms = self._targets[entities], self._target_norms[entities]
        inner, squared_norm = self._student_moments(rows, student.features, targets, len(users))
        losses = feature_loss(inner, squared_norm, target_norms, self.settings.loss)
        total = losses[: len(users)].sum() + ITEM_WEIGHT * losses[len(users) :].sum()
        return self.settings.distillation_weight * total

    def _student_moments(
        self, rows: FilterRows, features: torch.Tensor, targets: torch.Tensor, num_user_rows: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """⟨p, b⟩ and ‖p‖² of the filtered, projected student rows p: two tensors of shape (B,)."""
        commutes = self.user_projector.is_linear and self.settings.variant == "cooccurrence"
        if self.settings.order == "filter-first" or commutes:
            filtered = rows.apply(features)
            user = self.user_projector.moments(filtered[:num_user_rows], targets[:num_user_rows])
            item = self.item_projector.moments(filtered[num_user_rows:], targets[num_user_rows:])
            return torch.cat([user[0], item[0]]), torch.cat([user[1], item[1]])
        entities, local_rows = rows.localize()
        first_item = int(torch.searchsorted(entities, self.num_users))
        projected = torch.cat(
            [
                self.user_projector(features[entities[:first_item]]),
                self.item_projector(features[entities[first_item:]]),
            ]
        )
        return row_moments(local_rows.apply(projected), targets)
