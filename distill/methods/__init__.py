"""Distillation methods by name. A new one is one file here and one line in `METHODS`."""

from __future__ import annotations

from distill.methods.base import Method, MethodSettings, Teacher
from distill.methods.fd import FeatureDistillation
from distill.methods.freqd import FreqD
from distill.methods.scratch import Scratch

METHODS: dict[str, type[Method]] = {"scratch": Scratch, "fd": FeatureDistillation, "freqd": FreqD}

__all__ = ["METHODS", "Method", "MethodSettings", "Teacher"]
