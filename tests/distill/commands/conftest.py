from __future__ import annotations

from pathlib import Path

import pytest

import lowpass
from distill.data.interactions import save_interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from tests.distill.commands.words import QUICK, distill_words


@pytest.fixture(scope="session")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a teacher and a FreqD student of it. Not to be changed."""
    folder = tmp_path_factory.mktemp("road")
    data = synthesize(SyntheticOptions(num_users=60, num_items=50, num_clusters=6, mean_interactions=10))
    save_interactions(data, folder / "data")
    assert lowpass.main(["train", str(folder / "data"), "--out", str(folder / "teacher"), "--dim", "12", *QUICK]) == 0
    assert lowpass.main(distill_words(folder, folder / "student")) == 0
    return folder
