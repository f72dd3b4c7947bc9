"""Backbones, the recommenders that are trained, by name. A new one is one file here and one line in `BACKBONES`."""

from __future__ import annotations

from distill.backbones.base import Backbone
from distill.backbones.bprmf import BPRMF
from distill.backbones.ials import IALS
from distill.backbones.lightgcn import LightGCN
from distill.backbones.lpmf import LPMF
from distill.backbones.sampling import Batch, Sampler
from distill.backbones.simplex import SimpleX

BACKBONES: dict[str, type[Backbone]] = {
    "bprmf": BPRMF,
    "lpmf": LPMF,
    "lightgcn": LightGCN,
    "simplex": SimpleX,
    "ials": IALS,
}

__all__ = ["BACKBONES", "Backbone", "Batch", "Sampler"]
