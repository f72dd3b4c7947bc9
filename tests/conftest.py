from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import settings

from distill.data.interactions import Interactions
from tests.distill.toy import build_checkerboard

# A first call builds caches and may be slow on a shared machine; the suite's own time limit guards the rest.
settings.register_profile("lowpass", deadline=None)
# `make fuzz` takes this one.
settings.register_profile("fuzz", deadline=None, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "5000")))
settings.load_profile("lowpass")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20241116)


@pytest.fixture
def checkerboard() -> Interactions:
    """Even users take even items, odd users odd ones; each user's own row number is held out for test."""
    return build_checkerboard()
