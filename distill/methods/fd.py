"""Plain feature distillation: match every projected student row to the teacher's, all frequencies alike.

References:
    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015; Theorem 1 of FreqD (arXiv 2411.10676): this
    loss is the sum over all frequencies with equal weights.
"""

from __future__ import annotations

from dataclasses import asdict

import scipy.sparse as sp

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.graph.filters import GraphFilter
from distill.methods.base import Teacher, require_teacher
from distill.methods.cpd import PreferenceConsistency
from distill.methods.freqd import FeatureSettings, FreqD, FreqDSettings


class FeatureDistillation(FreqD):
    """FreqD with h = 1: no graph is built, no neighbour is read."""

    Settings = FeatureSettings

    @classmethod
    def build(
        cls, settings: FeatureSettings, data: Interactions, student: Backbone, teacher: Teacher | None
    ) -> FeatureDistillation:
        """Take the teacher's rows as they are.

        Raises:
            SettingError: There is no teacher.
        """
        teacher = require_teacher(teacher, "fd")
        size = data.num_users + data.num_items
        identity = GraphFilter(sp.csr_matrix((size, size), dtype="float32"), (1.0,))
        common = {name: value for name, value in asdict(settings).items() if name in FeatureSettings.__match_args__}
        unfiltered = FreqDSettings(**common, coefficients=(1.0,), order="filter-first", keep_prob=1.0)
        return cls(unfiltered, student, teacher, identity, PreferenceConsistency.build(settings, data, teacher))
