"""Backbones by name. A new one is one file here and one line in `BACKBONES`."""

from __future__ import annotations

from distill.backbones.base import Backbone
from distill.backbones.bprmf import BPRMF

BACKBONES: dict[str, type[Backbone]] = {"bprmf": BPRMF}

__all__ = ["BACKBONES", "Backbone"]
