from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from distill.data.interactions import Interactions, save_interactions
from distill.report.material import Material, gather
from distill.run import Run
from tests.distill.report.invented import invent_run
from tests.distill.toy import build_random


@dataclass(frozen=True)
class Gallery:
    """A folder with data, a teacher, and students: freqd under two seeds and a worse one from scratch."""

    folder: Path
    data: Interactions
    teacher: Run
    freqd: tuple[Run, Run]
    scratch: Run

    @property
    def students(self) -> list[Path]:
        return [*(run.path for run in self.freqd), self.scratch.path]

    def gather(self) -> Material:
        return gather(self.students, self.folder / "data")


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    folder = tmp_path_factory.mktemp("gallery")
    data = build_random(np.random.default_rng(5), num_users=60, num_items=45)
    save_interactions(data, folder / "data")
    teacher = invent_run(folder / "teacher", data, dim=16, skill=9.0)
    first, second = (
        invent_run(folder / f"freqd-{seed}", data, method="freqd", seed=seed, teacher=teacher, skill=6.0,
                   settings={"variant": "bipartite", "alpha": 0.2}, dim=12)
        for seed in (0, 1)
    )  # fmt: skip
    scratch = invent_run(folder / "scratch", data, skill=0.5)
    return Gallery(folder, data, teacher, (first, second), scratch)
