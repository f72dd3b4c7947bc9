"""FreqD: feature distillation through a low-pass polynomial graph filter.

    total = base + β · Σ_i w_i · D( h(L) P(X_s) [i], h(L) X_t [i] )

over the users, positives and negatives of a batch (each entity once, items weighted one half, as in the public
code). With D = l2 and w = 1 the sum over all entities is Σ_k h(λ_k)² ‖u_kᵀ(X_t − P(X_s))‖² (arXiv 2411.10676).

Cost of a step. The teacher's side h(L) X_t is computed once, before training. The student's side is an
embedding bag of width d_s over the batch's neighbours when the filter comes first, or when a linear projector
commutes with it; only the teacher's filtered rows are d_t wide, and they are read once forward and once backward.
With edge dropout the teacher's rows are filtered anew from their neighbours, by the same dropped graph.

What a projector may reach decides more than the filter. A linear one of d_s numbers holds d_s directions of the
teacher; an MLP bends them further, and costs 6 h (d_s + d_t) operations a row. `teacher_rank` makes either cheaper, in
the loss's own terms: with the 64 directions that hold most of 400, the gather and the products shrink by six.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.graph.adjacency import Graph, build_graph
from distill.graph.filters import BLOCK_NUMBERS, FilterRows, GraphFilter, linear_coefficients, quadratic_coefficients
from distill.methods.base import Method, Step, Teacher, require_teacher
from distill.methods.cpd import PreferenceConsistency, PreferenceSettings
from distill.methods.features import FeatureLoss, Sides, batch_entities, feature_loss, strongest_directions
from distill.methods.projector import ProjectorKind, build_projector, project_pair, published_hidden_dim, row_moments
from distill.rows import gather_rows

FilterKind = Literal["linear", "quadratic"]
Order = Literal["filter-first", "projector-first"]
Precision = Literal["float32", "bfloat16"]
StudentFeatures = Literal["final", "raw"]

PUBLISHED_ALPHA = {"bipartite": 0.2, "cooccurrence": 0.5}
PUBLISHED_ORDER: dict[str, Order] = {"bipartite": "filter-first", "cooccurrence": "projector-first"}
PUBLISHED_KEEP_PROB = {"bipartite": 1.0, "cooccurrence": 0.5}
REFERENCE = {"variant": "cooccurrence", "projector": "experts"}


@dataclass(frozen=True)
class FeatureSettings(PreferenceSettings):
    """Settings of every feature distillation beside those of `PreferenceSettings`; each changes the result.

    Attributes:
        distillation_weight: β, the factor of the distillation loss beside the base loss (both are sums).
        projector: "linear", "mlp" or "experts" (the mean of several MLPs).
        hidden_dim: Hidden width of "mlp" and of each expert; None takes the public code's, d_t / 2 and d_t.
        num_experts: MLPs of "experts".
        dropout: Probability of dropping an input of a layer of "experts".
        loss: "cosine" or "l2".
        sides: Whose features are distilled: "both", "users" or "items".
        student_features: What is compared of a student whose backbone makes its final embeddings of a table (LightGCN,
            LPMF, SimpleX): "final", what scores, as of the teacher; or "raw", the table, as in the public code, which
            the backbone then smooths once more.
        teacher_rank: r, directions of the teacher's rows that a projector may reach, those with the most of their
            energy; a step then reads r numbers a row, and the loss is exactly that of a projector which ends in their
            span (with edge dropout, of their share of the rows). None for all d_t.
        whole_histories: In a composition that goes by users (with `ce`, say): compare all their training items, and as
            many uniform ones, as an epoch of `freqd` alone does, not one pair a user. The loss, a sum over the
            entities, then weighs about ten times as much: give a tenth of the weight.
        teacher_precision: Of the teacher's filtered rows: "float32", or "bfloat16", which halves what a step reads
            and, where the processor multiplies it, more than halves the products; edge dropout keeps float32.
        step_share: Share of the steps, drawn at random, in which features are compared; they weigh its inverse, so
            that the loss is the same on average, at that share of its cost.
    """

    projector: ProjectorKind = "linear"
    hidden_dim: int | None = None
    num_experts: int = 5
    dropout: float = 0.2
    loss: FeatureLoss = "cosine"
    sides: Sides = "both"
    student_features: StudentFeatures = "final"
    teacher_rank: int | None = None
    whole_histories: bool = False
    teacher_precision: Precision = "float32"
    step_share: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_experts", "hidden_dim", "teacher_rank"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError(f"{name}: {value} is below 1")
        if not 0 <= self.dropout < 1:
            raise SettingError(f"dropout: {self.dropout} is outside [0, 1)")
        if not 0 < self.step_share <= 1:
            raise SettingError(f"step_share: {self.step_share} is outside (0, 1]")


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
        reference: Make the choices of the public code (class FreqD of github.com/woriazzc/KDs, 2025-06): what is left
            at its default becomes what is listed here. Its other choices are the defaults of "cooccurrence".

    The public code's choices, and what follows from each:
        - Co-occurrence graphs whose strongest entry is dropped as "self": after a tie an entity keeps a self loop and
          loses a neighbour. Only under `reference`.
        - Entities with fewer than K partners get strangers as neighbours: they are smoothed with entities they have
          nothing in common with. Only under `reference`.
        - Edges weigh 1, whatever the count, in both: a strong partner smooths no more than a weak one.
        - α = 0.5, so h(λ) = 1 − λ / 2: half of a filtered row is its neighbours', and frequency 2 is silenced.
        - Projector before filter, the mean of 5 MLPs with dropout 0.2: it does not commute with the filter, so that
          all neighbours of a batch are projected; `reference` makes it the default, "linear" is far cheaper.
          (The class of 2024, our "bipartite", has the filter first and one MLP: `projector="mlp"`.)
        - Half of the edges dropped in each step, student and teacher alike, the kept ones doubled: the filter is right
          on average only, and the teacher is filtered anew, d_t wide, in each step.
        - Cosine: row norms do not count, and Theorem 1 holds no longer to the letter ("l2" restores it).
        - A sum over a batch's entities, items halved, β = 0.5: β is right only beside a base loss that is a sum.
        - Dense normalisation and projection of all entities are not repeated: the results are the same. An item that
          is both positive and negative has its edges and inputs dropped once, not twice, and a self loop that a tie
          left is never dropped.
    """

    variant: Graph = "bipartite"
    filter: FilterKind = "linear"
    alpha: float | None = None
    coefficients: tuple[float, ...] | None = None
    order: Order | None = None
    num_neighbors: int = 5
    keep_prob: float | None = None
    reference: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference:
            for name, value in REFERENCE.items():
                if getattr(self, name) == getattr(FreqDSettings, name):
                    object.__setattr__(self, name, value)
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise SettingError(
                f"alpha: {self.alpha} is outside [0, 1]; beyond, high frequencies weigh most: give coefficients"
            )
        if self.keep_prob is not None and not 0 < self.keep_prob <= 1:
            raise SettingError(f"keep_prob: {self.keep_prob} is outside (0, 1]")
        if self.num_neighbors < 1:
            raise SettingError(f"num_neighbors: {self.num_neighbors} is below 1")


def fill_published(settings: FreqDSettings) -> FreqDSettings:
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
    """Build h(L) over all N entities of the training graph; the settings are filled."""
    graph = build_graph(data, settings.variant, settings.num_neighbors, reference=settings.reference)
    return GraphFilter(graph, settings.coefficients or (1.0,))


class FreqD(Method):
    """Feature distillation seen by frequency; with h = 1 it is plain feature distillation."""

    Settings: ClassVar[type[Any]] = FreqDSettings

    def __init__(
        self,
        settings: FreqDSettings,
        student: Backbone,
        teacher: Teacher,
        graph_filter: GraphFilter,
        preference: PreferenceConsistency | None = None,
    ) -> None:
        """Filter the teacher once and make a projector for users and one for items.

        Args:
            settings: Filled by `fill_published`.
            student: The backbone to be distilled into.
            teacher: Final features, shape (N, d_t).
            graph_filter: h(L) over all N entities.
            preference: Add-on that keeps the student's ranking under the projectors.
        """
        super().__init__()
        self.settings = settings
        self.preference = preference
        self.num_users = student.num_users
        hidden_dim = settings.hidden_dim or published_hidden_dim(settings.projector, teacher.dim)
        width = min(settings.teacher_rank or teacher.dim, teacher.dim)
        sizes = (student.dim, width, hidden_dim, settings.num_experts, settings.dropout)
        self.user_projector = build_projector(settings.projector, *sizes)
        self.item_projector = build_projector(settings.projector, *sizes)
        self._filter = graph_filter
        self._drops_edges = (settings.keep_prob or 1.0) < 1.0
        commutes = self.user_projector.is_linear and settings.variant == "cooccurrence"
        self._filters_student_rows = settings.order == "filter-first" or commutes
        targets, norms = self._teacher_rows(teacher.features, width)
        self.register_buffer("_target_norms", norms, persistent=False)
        self.register_buffer("_targets", targets, persistent=False)
        self._targets: torch.Tensor
        self._target_norms: torch.Tensor

    def _teacher_rows(self, features: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The teacher's side as it is kept, shape (N, width), and the squared norms of its rows at full width.

        It goes by blocks of rows: beside the teacher and what is kept, nothing is as long.
        """

        def blocks() -> Iterator[torch.Tensor]:
            if self._drops_edges:
                return iter(torch.split(features, max(1, BLOCK_NUMBERS // features.shape[1])))
            return map(torch.from_numpy, self._filter.filter_blocks(np.asarray(features)))

        is_whole = width == features.shape[1]
        directions = None if is_whole else strongest_directions(blocks(), width, self.settings.loss)
        halved = self.settings.teacher_precision == "bfloat16" and not self._drops_edges
        shared = is_whole and self._drops_edges
        norms = torch.empty(len(features))
        targets = features if shared else torch.empty(len(features), width, dtype=torch.bfloat16 if halved else None)
        start = 0
        for rows in blocks():
            here = slice(start, start + len(rows))
            norms[here] = rows.square().sum(dim=1)
            if not shared:
                targets[here] = rows if directions is None else rows @ directions
            start += len(rows)
        return targets, norms

    @classmethod
    def build(cls, settings: FreqDSettings, data: Interactions, student: Backbone, teacher: Teacher | None) -> FreqD:
        """Build the graph, the filter and the filtered teacher.

        Raises:
            SettingError: There is no teacher.
        """
        teacher = require_teacher(teacher, "freqd")
        settings = fill_published(settings)
        preference = PreferenceConsistency.build(settings, data, teacher)
        return cls(settings, student, teacher, build_graph_filter(settings, data), preference)

    def begin_epoch(self, student: Backbone, rng: np.random.Generator) -> None:
        """Let the add-on draw, where there is one."""
        if self.preference is not None:
            self.preference.begin_epoch(rng)

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum β times the weighted distances over the batch's entities, and the add-on where there is one: a scalar.

        It is a zero without a gradient in the steps that `step_share` leaves out.
        """
        share = self.settings.step_share
        if share < 1.0 and torch.rand((), generator=step.generator, device=step.features.device).item() >= share:
            return step.features.new_zeros(())
        if self.settings.student_features == "final":
            step = replace(step, features=step.embeddings)
        loss = self._feature_loss(step)
        if self.preference is not None:
            loss = loss + self.preference.loss(step, partial(self._project_pair, step.generator))
        return self.settings.distillation_weight / share * loss

    def _feature_loss(self, step: Step) -> torch.Tensor:
        entities, row_weights, num_user_rows = batch_entities(step.batch, self.num_users, self.settings.sides)
        rows = self._filter.rows(entities, keep_prob=self.settings.keep_prob or 1.0, generator=step.generator)
        places = entities
        targets, target_norms = self._targets, self._target_norms
        if self._drops_edges:
            with torch.no_grad():
                targets = rows.apply(targets)
            target_norms, places = targets.square().sum(dim=1), torch.arange(len(targets), device=targets.device)
        if not self._filters_student_rows:
            moments = row_moments(self._project_then_filter(rows, step), targets[places].float())
            return row_weights @ feature_loss(*moments, target_norms[places], self.settings.loss)
        filtered = rows.apply(step.features)
        common = (self.settings.loss, step.generator)
        user, item = (
            projector.loss(filtered[part], targets, target_norms, places[part], row_weights[part], *common)
            for projector, part in (
                (self.user_projector, slice(None, num_user_rows)),
                (self.item_projector, slice(num_user_rows, None)),
            )
        )
        return user + item

    def _project_pair(
        self, generator: torch.Generator, features: torch.Tensor, users: torch.Tensor, items: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        projectors = (self.user_projector, self.item_projector)
        return project_pair(*projectors, features[users], features[items], generator)

    def _project_then_filter(self, rows: FilterRows, step: Step) -> torch.Tensor:
        """Project the neighbours, then filter: (B, d_t), for projectors that do not commute with the filter."""
        entities, local_rows = rows.localize()
        first_item = int(torch.searchsorted(entities, self.num_users))
        users = self.user_projector(gather_rows(step.features, entities[:first_item]), step.generator)
        items = self.item_projector(gather_rows(step.features, entities[first_item:]), step.generator)
        return local_rows.apply(torch.cat([users, items]))
