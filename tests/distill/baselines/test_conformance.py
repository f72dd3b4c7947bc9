from __future__ import annotations

from typing import ClassVar

from distill.baselines import BASELINES
from tests.kits.baseline_kit import BaselineKit


class TestPopularity(BaselineKit):
    name = "popularity"


class TestItemKNN(BaselineKit):
    name = "itemknn"
    settings: ClassVar = {"num_neighbors": 5, "shrink": 1.0}


class TestEase(BaselineKit):
    name = "ease"
    settings: ClassVar = {"regularization": 3.0}


class TestGFCF(BaselineKit):
    name = "gfcf"
    settings: ClassVar = {"rank": 3, "ideal_weight": 0.3}


class TestTurboCF(BaselineKit):
    name = "turbocf"
    settings: ClassVar = {"alpha": 0.4, "degree": 2}


def test_every_baseline_is_in_the_kit() -> None:
    assert {kit.name for kit in BaselineKit.__subclasses__()} == set(BASELINES)
