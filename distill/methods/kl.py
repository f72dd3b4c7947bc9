"""KL divergence from the teacher's softmax over the whole catalogue.

Cost of a step with B users: 2 B |I| d_t operations for the teacher's scores, beside the 6 B |I| d_s of
`catalogue_divergence`; nothing is stored a user but the teacher's embedding.

References:
    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531, 2015.
"""

from __future__ import annotations

import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.methods.base import Method, Step, Teacher, require_teacher
from distill.methods.responses import (
    TRAINING_DEFAULTS,
    ResponseSettings,
    TeacherTarget,
    catalogue_divergence,
    scale_temperature,
    smooth_teacher,
)


class KullbackLeibler(Method):
    """Learns every score of the teacher, weighed by its softmax."""

    Settings = ResponseSettings
    batches = "users"
    training_defaults = TRAINING_DEFAULTS

    def __init__(self, settings: ResponseSettings, teacher: Teacher) -> None:
        """Hold the teacher, which is smoothed already."""
        super().__init__()
        self.settings = settings
        self.base_weight = settings.base_weight
        self.num_users = teacher.num_users
        self.register_buffer("_users", teacher.users, persistent=False)
        self.register_buffer("_items", teacher.items, persistent=False)
        self._users: torch.Tensor
        self._items: torch.Tensor

    @classmethod
    def build(
        cls, settings: ResponseSettings, data: Interactions, student: Backbone, teacher: Teacher | None
    ) -> KullbackLeibler:
        """Smooth the teacher.

        Raises:
            SettingError: There is no teacher.
        """
        return cls(
            scale_temperature(settings, student), smooth_teacher(require_teacher(teacher, "kl"), data, settings.alpha)
        )

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum the weighted divergence over the batch's users: a scalar."""
        users = torch.unique(step.batch.users)
        temperature = self.settings.temperature
        target = TeacherTarget(self._users[users], self._items, temperature)
        loss = catalogue_divergence(step.embeddings, users, self.num_users, target, temperature)
        return self.settings.distillation_weight * loss
