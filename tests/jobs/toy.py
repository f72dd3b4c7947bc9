"""A job on invented interactions that takes a second, and what the tests change of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jobs.record.state import RunState
from jobs.runner import run_job
from jobs.spec.reading import load_spec

SPEC = """
name = "toy"
[data]
source = "interactions.csv"
split = "ordered"
[teacher]
dim = 16
epochs = 4
eval_every = 2
learning_rate = 0.05
weight_decay = 1e-4
[student]
method = "ce"
dim = 8
epochs = 4
eval_every = 2
co_teachers = "none"
[export]
budget = 0
[publish]
repository = "models"
[gate]
kept_ndcg = 0.5
kept_recall = 0.5
worse_than_stable = 1
list_overlap = 0
p99_ms = 10000
"""
"""An index is chosen by the clock, and so may differ from one export to the next: without a budget it is always one.
Whoever has 14 of the 15 items of a taste has a list of which all but one is anybody's guess, so lists may differ."""


def write_interactions(path: Path, *, users: int = 60, taken: int = 12, seed: int = 0) -> None:
    """Users of four tastes, in 60 items; more `taken` adds to what there was at the end of each user's."""
    rng = np.random.default_rng(seed)
    lines = ["user_id,item_id"]
    for user in range(users):
        order = rng.permutation(15) * 4 + user % 4
        lines += [f"u{user},i{item}" for item in order[:taken]]
    path.write_text("\n".join(lines) + "\n")


def write_job(folder: Path, *changes: tuple[str, str], more: str = "") -> Path:
    """Write a spec and its interactions; each change replaces what it finds in the spec."""
    text = SPEC
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "interactions.csv").exists():
        write_interactions(folder / "interactions.csv")
    path = folder / "job.toml"
    path.write_text(text + more)
    return path


def run(spec: Path) -> RunState:
    return run_job(load_spec(spec), shown=False)
