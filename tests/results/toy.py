"""A small plan, and rows of known numbers for its cells."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from results.cells import COLUMNS, EQUAL_TIMES, INT8, TEST, VALIDATION, Row, within
from results.plan import Plan, load_plan

PLAN = """
epochs = 4
patience = 4
eval_every = 2
summary = ["svd", "scratch", "best"]
[data]
toy = { source = "toy.csv", options = { split = "random" } }
[contestants.scratch]
method = "scratch"
trials = [{ learning_rate = 1e-2 }]
[contestants.best]
method = "freqd+ce"
start = "svd"
trials = [{ "ce.num_top" = 5 }, { "ce.num_top" = 9, weight_decay = 1e-4 }]
[[study]]
data = "toy"
backbone = "bprmf"
pictured = true
teacher = { dim = 12, epochs = 6, patience = 6, learning_rate = 1e-2 }
dim = 4
more_dims = { 3 = ["scratch"] }
seeds = [0, 7]
contestants = ["scratch", "best"]
untrained = ["popularity", "svd", "teacher-float16", "teacher-int8"]
"""


def write_plan(folder: Path, text: str = PLAN) -> Plan:
    """Write a plan into a folder and read it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.toml").write_text(text)
    return load_plan(folder / "plan.toml")


def row(validation: float, test: float, *, dim: int = 12, int8: float | None = None) -> Row:
    """A training that was at 0.1 after 9 s, and at its end after 20."""
    settings = {"method": "scratch", "backbone": "bprmf", "dim": dim, "learning_rate": 0.01, "weight_decay": 0.001}
    values: Mapping[str, Any] = {
        "settings": {**settings, "patience": 6},
        "bytes_per_item": 4.0 * dim,
        VALIDATION: validation,
        TEST: test,
        "test NDCG@20": test / 2,
        INT8: int8,
        **{within(seconds): 0.1 if seconds < 20 else validation for seconds in EQUAL_TIMES},
        "best_epoch": 4,
        "epochs": 6,
        "seconds": 9.0,
        "processor_seconds": 20.0,
        "peak_memory_bytes": 2**30,
    }
    return {**dict.fromkeys(COLUMNS), **values}
