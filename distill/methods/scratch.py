"""The bare student: no distillation, the baseline of every comparison (and how a teacher is trained)."""

from __future__ import annotations

import torch

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.methods.base import Method, MethodSettings, Teacher
from distill.sampling import Batch


class Scratch(Method):
    """Adds nothing to the base loss."""

    needs_teacher = False

    @classmethod
    def build(
        cls,
        settings: MethodSettings,  # noqa: ARG003 (the protocol's signature)
        data: Interactions,  # noqa: ARG003
        student: Backbone,  # noqa: ARG003
        teacher: Teacher | None,  # noqa: ARG003
    ) -> Scratch:
        """Nothing to prepare."""
        return cls()

    def distillation_loss(self, batch: Batch, student: Backbone, generator: torch.Generator) -> None:
        """None: there is nothing to add."""
