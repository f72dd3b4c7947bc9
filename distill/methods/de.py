"""DE: distillation experts, each of which projects the entities that a gate sends it by their teacher's feature.

    total = base + β · Σ_i w_i ‖t_i − Σ_k z_ik E_k(s_i)‖²,  z_i = softmax((ln α(t_i) + g_i) / T)

over the users, positives and negatives of a batch (each entity once, items weighted one half), with experts and a
gate for users and others for items. T falls geometrically over the epochs from 1 until the gate chooses one expert.

Cost of a step. The rows with a share in an expert pass through it: `distill.methods.projector` has the count. While T
is near 1 that is all K of them, 6 B K h (d_s + d_t) operations with h = (d_s + d_t) / 2; once T is below about 0.01 it
is nearly one, a K-th of that. The teacher's rows are read once forward and once backward. `max_rows` bounds B: on a
processor the whole batch of the public codes takes hundreds of bare steps.

Where this is not the public codes: T falls over 100 epochs, not over the 1,000 that trainings end long before, so that
the gate comes to choose and a step to its lower cost; an item that is both positive and negative draws its noise once,
not twice; equal dimensions do not halve the experts' width.

References:
    Kang, Hwang, Kweon and Yu, "DE-RRD: A Knowledge Distillation Framework for Recommender System", CIKM 2020
    (arXiv 2012.04357); github.com/SeongKu-Kang/DE-RRD_CIKM20. The halved items, the 30 experts and the
    schedule of T are those of github.com/woriazzc/KDs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods.base import Method, Step, Teacher, require_teacher
from distill.methods.cpd import PreferenceConsistency, PreferenceSettings
from distill.methods.features import batch_entities
from distill.methods.projector import GatedExperts
from distill.rows import gather_rows


@dataclass(frozen=True)
class DistillationExpertsSettings(PreferenceSettings):
    """Settings beside those of `PreferenceSettings`; each changes the result.

    Attributes:
        distillation_weight: β (the loss is a sum over entities, like the base loss).
        num_experts: K, for users and again for items.
        temperature: T of the first epoch.
        end_temperature: T of epoch `anneal_epochs` and all after it.
        anneal_epochs: Epochs over which T falls.
        max_rows: Bound on the entities compared in a step, half of them users, half items; what is drawn from the
            batch stands for the rest, so that the expected loss is the same. None compares all.
    """

    num_experts: int = 30
    temperature: float = 1.0
    end_temperature: float = 1e-10
    anneal_epochs: int = 100
    max_rows: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_experts", "anneal_epochs"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name}: {getattr(self, name)} is below 1")
        if self.max_rows is not None and self.max_rows < 2:
            raise SettingError(f"max_rows: {self.max_rows} is below 2, a user and an item")
        if not 0 < self.end_temperature <= self.temperature:
            raise SettingError(
                f"end_temperature: {self.end_temperature} is not above 0 and at most temperature ({self.temperature})"
            )


class DistillationExperts(Method):
    """Matches the teacher's rows through experts that share the entities among themselves."""

    Settings = DistillationExpertsSettings

    def __init__(
        self,
        settings: DistillationExpertsSettings,
        student: Backbone,
        teacher: Teacher,
        preference: PreferenceConsistency | None = None,
    ) -> None:
        """Draw the experts and the gates; `preference` is the add-on that keeps the student's own ranking."""
        super().__init__()
        self.settings = settings
        self.preference = preference
        self.num_users = teacher.num_users
        self.user_experts = GatedExperts(student.dim, teacher.dim, settings.num_experts)
        self.item_experts = GatedExperts(student.dim, teacher.dim, settings.num_experts)
        self.temperature = settings.temperature
        self._targets: torch.Tensor
        self._epoch: torch.Tensor
        self.register_buffer("_targets", teacher.features, persistent=False)
        self.register_buffer("_epoch", torch.tensor(0))

    @classmethod
    def build(
        cls, settings: DistillationExpertsSettings, data: Interactions, student: Backbone, teacher: Teacher | None
    ) -> DistillationExperts:
        """Take the teacher's rows as they are.

        Raises:
            SettingError: There is no teacher.
        """
        teacher = require_teacher(teacher, "de")
        return cls(settings, student, teacher, PreferenceConsistency.build(settings, data, teacher))

    def begin_epoch(self, student: Backbone, rng: np.random.Generator) -> None:
        """Set T of this epoch; the count of epochs is part of a checkpoint."""
        settings = self.settings
        done = min(1.0, int(self._epoch) / settings.anneal_epochs)
        self.temperature = settings.temperature * (settings.end_temperature / settings.temperature) ** done
        self._epoch += 1
        if self.preference is not None:
            self.preference.begin_epoch(rng)

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum the weighted loss over the batch's entities: a scalar."""
        entities, weights, count = batch_entities(step.batch, self.num_users)
        loss = step.features.new_zeros(())
        for experts, part in ((self.user_experts, slice(None, count)), (self.item_experts, slice(count, None))):
            rows, shares = self._draw(entities[part], weights[part], step.generator)
            loss = loss + shares @ self._distances(experts, rows, step)
        if self.preference is not None:
            loss = loss + self.preference.loss(step, partial(self._project_pair, step.generator))
        return self.settings.distillation_weight * loss

    def _draw(
        self, entities: torch.Tensor, weights: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Entities of one kind that are compared, and their weights: all, or at most half of `max_rows`."""
        most = len(entities) if self.settings.max_rows is None else self.settings.max_rows // 2
        if len(entities) <= most:
            return entities, weights
        drawn = torch.randperm(len(entities), generator=generator, device=entities.device)[:most]
        return entities[drawn], weights[drawn] * (len(entities) / most)

    def _distances(self, experts: GatedExperts, entities: torch.Tensor, step: Step) -> torch.Tensor:
        """‖t − Σ z E(s)‖² of each entity, shape (B,)."""
        projected = self._project(experts, step.features, entities, step.generator)
        return (self._targets[entities] - projected).square().sum(dim=1)

    def _project(
        self, experts: GatedExperts, features: torch.Tensor, entities: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        """Σ z E(s) of entities of one kind, shape (B, d_t)."""
        rows, targets = gather_rows(features, entities), self._targets[entities]
        projected: torch.Tensor = experts(rows, targets, self.temperature, generator)
        return projected

    def _project_pair(
        self, generator: torch.Generator, features: torch.Tensor, users: torch.Tensor, items: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return (
            self._project(self.user_experts, features, users, generator),
            self._project(self.item_experts, features, items, generator),
        )
