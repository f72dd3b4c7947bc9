"""Plain feature distillation: match every projected student row to the teacher's, all frequencies alike.

References:
    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015; Theorem 1 of FreqD (arXiv 2411.10676): this
    loss is the sum over all frequencies with equal weights.
"""

from __future__ import annotations

from dataclasses import replace

import scipy.sparse as sp

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.filters import GraphFilter
from distill.methods.base import MethodSettings, Teacher, require_teacher
from distill.methods.freqd import FreqD


class FeatureDistillation(FreqD):
    """FreqD with h = 1: no graph is built, no neighbour is read."""

    @classmethod
    def build(
        cls, settings: MethodSettings, data: Interactions, student: Backbone, teacher: Teacher | None
    ) -> FeatureDistillation:
        """Take the teacher's rows as they are.

        Raises:
            SettingError: There is no teacher.
        """
        teacher = require_teacher(teacher, "fd")
        size = data.num_users + data.num_items
        identity = GraphFilter(sp.csr_matrix((size, size), dtype="float32"), (1.0,))
        unfiltered = replace(settings, coefficients=(1.0,), order="filter-first", keep_prob=1.0)
        return cls(unfiltered, student, teacher, identity)
