from __future__ import annotations

import numpy as np
import pytest

from distill.data.interactions import Interactions
from tests.distill.toy import build_checkerboard


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20241116)


@pytest.fixture
def checkerboard() -> Interactions:
    """Even users take even items, odd users odd ones; each user's own row number is held out for test."""
    return build_checkerboard()
