"""The bare student: no distillation, the baseline of every comparison (and how a teacher is trained)."""

from __future__ import annotations

from distill.methods.base import Method, Step


class Scratch(Method):
    """Adds nothing to the base loss."""

    needs_teacher = False

    @classmethod
    def build(cls, *_: object, **__: object) -> Scratch:
        """Nothing to prepare, whatever is given."""
        return cls()

    def distillation_loss(self, step: Step) -> None:
        """None: there is nothing to add."""
