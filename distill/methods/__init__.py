"""Distillation methods by name. A new one is one file here and one line in `METHODS`."""

from __future__ import annotations

from distill.methods.base import Method, Step, Teacher
from distill.methods.cross_entropy import CrossEntropy
from distill.methods.fd import FeatureDistillation
from distill.methods.freqd import FreqD
from distill.methods.kl import KullbackLeibler
from distill.methods.scratch import Scratch

METHODS: dict[str, type[Method]] = {
    "scratch": Scratch,
    "fd": FeatureDistillation,
    "freqd": FreqD,
    "kl": KullbackLeibler,
    "ce": CrossEntropy,
}

__all__ = ["METHODS", "Method", "Step", "Teacher"]
