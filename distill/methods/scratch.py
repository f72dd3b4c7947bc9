"""The bare student: no distillation, the baseline of every comparison (and how a teacher is trained)."""

from __future__ import annotations

import torch

from distill.backbones.base import Backbone
from distill.methods.base import Method
from distill.sampling import Batch


class Scratch(Method):
    """Adds nothing to the base loss."""

    needs_teacher = False

    @classmethod
    def build(cls, *_: object, **__: object) -> Scratch:
        """Nothing to prepare, whatever is given."""
        return cls()

    def distillation_loss(self, batch: Batch, student: Backbone, generator: torch.Generator) -> None:
        """None: there is nothing to add."""
