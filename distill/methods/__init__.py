"""Distillation methods by name, one paper a file. A new one is one file here and one line in `METHODS`.

`composition` builds them by name, alone or several at once; `svd` makes a student without training.
"""

from __future__ import annotations

from distill.methods.base import Method, Step, Teacher
from distill.methods.cross_entropy import CrossEntropy
from distill.methods.dcd import DualCorrection
from distill.methods.de import DistillationExperts
from distill.methods.fd import FeatureDistillation
from distill.methods.freqd import FreqD
from distill.methods.hetcomp import HeterogeneousCompression
from distill.methods.htd import TopologyDistillation
from distill.methods.kl import KullbackLeibler
from distill.methods.rcekd import RejuvenatedCrossEntropy
from distill.methods.rrd import RelaxedRankingDistillation
from distill.methods.scratch import Scratch
from distill.methods.spectral import SpectralWeights
from distill.methods.svd import truncated_svd
from distill.methods.unkd import UnbiasedDistillation

METHODS: dict[str, type[Method]] = {
    "scratch": Scratch,
    "fd": FeatureDistillation,
    "freqd": FreqD,
    "de": DistillationExperts,
    "htd": TopologyDistillation,
    "spectral": SpectralWeights,
    "kl": KullbackLeibler,
    "ce": CrossEntropy,
    "rrd": RelaxedRankingDistillation,
    "dcd": DualCorrection,
    "unkd": UnbiasedDistillation,
    "hetcomp": HeterogeneousCompression,
    "rcekd": RejuvenatedCrossEntropy,
}

__all__ = ["METHODS", "Method", "Step", "Teacher", "truncated_svd"]
