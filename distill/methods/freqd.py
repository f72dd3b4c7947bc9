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

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.filters import FilterRows, GraphFilter, linear_coefficients, quadratic_coefficients
from distill.graph import bipartite_adjacency, cooccurrence_adjacency, symmetric_normalization
from distill.losses import FeatureLoss, feature_loss
from distill.methods.base import Method, Step, Teacher, require_not_negative, require_teacher
from distill.projector import ProjectorKind, build_projector, row_moments

Variant = Literal["bipartite", "cooccurrence"]
FilterKind = Literal["linear", "quadratic"]
Order = Literal["filter-first", "projector-first"]
Sides = Literal["both", "users", "items"]
Precision = Literal["float32", "bfloat16"]

PUBLISHED_ALPHA = {"bipartite": 0.2, "cooccurrence": 0.5}
PUBLISHED_ORDER: dict[str, Order] = {"bipartite": "filter-first", "cooccurrence": "projector-first"}
PUBLISHED_KEEP_PROB = {"bipartite": 1.0, "cooccurrence": 0.5}
ITEM_WEIGHT = 0.5


@dataclass(frozen=True)
class FeatureSettings:
    """Settings of every feature distillation; each changes the result.

    Attributes:
        distillation_weight: β, the factor of the distillation loss beside the base loss (both are sums).
        projector: "linear", "mlp" or "experts" (the mean of five MLPs).
        loss: "cosine" or "l2".
        sides: Whose features are distilled: "both", "users" or "items".
        teacher_precision: Of the teacher's filtered rows: "float32", or "bfloat16", which halves what a step reads
            and, where the processor multiplies it, more than halves the products; edge dropout keeps float32.
    """

    distillation_weight: float = 0.5
    projector: ProjectorKind = "linear"
    loss: FeatureLoss = "cosine"
    sides: Sides = "both"
    teacher_precision: Precision = "float32"

    def __post_init__(self) -> None:
        require_not_negative(self, "distillation_weight")


@dataclass(frozen=True)
class FreqDSettings(FeatureSettings):
    """Settings of FreqD beside those of `FeatureSettings`.

    Attributes:
        variant: The graph: "bipartite" (user–item) or "cooccurrence" (top-K user–user and item–item).
        filter: "linear" h(λ) = 1 − αλ, or "quadratic" h(λ) = (1 − αλ)².
        alpha: α; None takes the variant's published value, 0.2 or 0.5.
        coefficients: c_0, c_1, … of any polynomial h(λ); overrides `filter` and `alpha`.
        order: Whether student rows are filtered before or after the projector; None takes the variant's.
        num_neighbors: K of the co-occurrence graph.
        keep_prob: Edge dropout's probability of keeping an edge; None takes the variant's, 1 or 0.5.
        reference: Reproduce the traps of the public code's co-occurrence graph.
    """

    variant: Variant = "bipartite"
    filter: FilterKind = "linear"
    alpha: float | None = None
    coefficients: tuple[float, ...] | None = None
    order: Order | None = None
    num_neighbors: int = 5
    keep_prob: float | None = None
    reference: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise SettingError(f"alpha: {self.alpha} is outside [0, 1]")
        if self.keep_prob is not None and not 0 < self.keep_prob <= 1:
            raise SettingError(f"keep_prob: {self.keep_prob} is outside (0, 1]")
        if self.num_neighbors < 1:
            raise SettingError(f"num_neighbors: {self.num_neighbors} is below 1")


def complete(settings: FreqDSettings) -> FreqDSettings:
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


def build_graph_filter(settings: FreqDSettings, data: Interactions) -> GraphFilter:
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

    Settings: ClassVar[type[Any]] = FreqDSettings

    def __init__(self, settings: FreqDSettings, student: Backbone, teacher: Teacher, graph_filter: GraphFilter) -> None:
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
        commutes = self.user_projector.is_linear and settings.variant == "cooccurrence"
        self._filters_student_rows = settings.order == "filter-first" or commutes
        targets = teacher.features
        if not self._drops_edges:
            targets = torch.from_numpy(graph_filter.filter_all(np.asarray(targets)))
        self.register_buffer("_target_norms", targets.square().sum(dim=1), persistent=False)
        if settings.teacher_precision == "bfloat16" and not self._drops_edges:
            targets = targets.bfloat16()
        self.register_buffer("_targets", targets, persistent=False)
        self._targets: torch.Tensor
        self._target_norms: torch.Tensor

    @classmethod
    def build(cls, settings: FreqDSettings, data: Interactions, student: Backbone, teacher: Teacher | None) -> FreqD:
        """Build the graph, the filter and the filtered teacher.

        Raises:
            SettingError: There is no teacher.
        """
        teacher = require_teacher(teacher, "freqd")
        settings = complete(settings)
        return cls(settings, student, teacher, build_graph_filter(settings, data))

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """β · the weighted sum over the batch's entities: a scalar."""
        entities, row_weights, num_user_rows = self._entities(step)
        rows = self._filter.rows(entities, keep_prob=self.settings.keep_prob or 1.0, generator=step.generator)
        places = entities
        targets, target_norms = self._targets, self._target_norms
        if self._drops_edges:
            with torch.no_grad():
                targets = rows.apply(targets)
            target_norms, places = targets.square().sum(dim=1), torch.arange(len(targets), device=targets.device)
        if not self._filters_student_rows:
            moments = row_moments(self._project_then_filter(rows, step.features), targets[places].float())
            losses = feature_loss(*moments, target_norms[places], self.settings.loss)
            return self.settings.distillation_weight * (row_weights @ losses)
        filtered = rows.apply(step.features)
        parts = (slice(None, num_user_rows), slice(num_user_rows, None))
        user, item = (
            projector.loss(filtered[part], targets, target_norms, places[part], row_weights[part], self.settings.loss)
            for part, projector in zip(parts, (self.user_projector, self.item_projector), strict=True)
        )
        return self.settings.distillation_weight * (user + item)

    def _entities(self, step: Step) -> tuple[torch.Tensor, torch.Tensor, int]:
        """The batch's entity rows, users first, each once; their weights; how many of them are users."""
        batch, first_item = step.batch, self.num_users
        weights = torch.zeros(len(step.features), device=step.features.device)
        if self.settings.sides != "items":
            weights[batch.users] = 1.0
        if self.settings.sides != "users":
            for items in (batch.positives, batch.negatives):
                role = torch.zeros_like(weights)
                role[first_item + items] = ITEM_WEIGHT
                weights += role
        entities = weights.nonzero().squeeze(1)
        return entities, weights[entities], int(torch.searchsorted(entities, first_item))

    def _project_then_filter(self, rows: FilterRows, features: torch.Tensor) -> torch.Tensor:
        """Project the neighbours, then filter: (B, d_t), for projectors that do not commute with the filter."""
        entities, local_rows = rows.localize()
        first_item = int(torch.searchsorted(entities, self.num_users))
        users = self.user_projector(features[entities[:first_item]])
        items = self.item_projector(features[entities[first_item:]])
        return local_rows.apply(torch.cat([users, items]))
