"""What folding in gives users whom neither teacher, student nor fold-in table has seen: the numbers of docs/serving.md.

    python -m tests.benchmarks.fold_in_new_users DATA WORK

holds a fifth of the users out, trains a teacher and a student of the others (minutes; what WORK holds already is not
trained again), and folds the held-out users in from 1 to 5, 6 to 20 and all of their training items. Recall@20 and
NDCG@20 are of their test items, beside the paired difference to popularity and what the trained users' vectors reach.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import scipy.sparse as sp
import torch
from tabulate import tabulate

from distill.data.interactions import Interactions, load_interactions
from distill.evaluation.metrics import Rows, Values, measure_ranking
from distill.evaluation.ranking import rank_items, rank_scores
from distill.evaluation.significance import compare_pairs
from distill.run import METRICS_FILE, Run, open_run
from distill.training.job import build_job, run_job
from export.build.fold_in import fit_fold_in, fold_in
from export.build.fold_in_choice import choose_settings, cut_histories

HELD_OUT = 0.2
LENGTHS = {"1-5": (1, 5), "6-20": (6, 20), "all": (1, 10**9)}
CUTOFF = 20
TEACHER = {"dim": 128, "learning_rate": 3e-3, "max_seconds": 120}
STUDENT = {"dim": 20, "max_seconds": 60}


@click.command()
@click.argument("source", type=click.Path(path_type=Path, exists=True))
@click.argument("work", type=click.Path(path_type=Path))
def main(source: Path, work: Path) -> None:
    """Measure new users of the data directory SOURCE; runs are kept in WORK."""
    data, rng = load_interactions(source), np.random.default_rng(0)
    users = rng.permutation(np.flatnonzero(np.diff(data.train.indptr)))
    new = np.sort(users[: int(HELD_OUT * data.num_users)])
    others = take_users(data, np.setdiff1d(np.arange(data.num_users), new))
    student = train(others, work)
    vectors, items = student.user_embeddings, student.item_embeddings
    settings, _ = choose_settings(items, vectors, others.train, others.validation, rng)
    table = fit_fold_in(others.train, vectors, settings)
    held = take_users(data, new)
    popularity = np.bincount(others.train.indices, minlength=data.num_items).astype(np.float32)
    rows = []
    for name, bounds in LENGTHS.items():
        histories, who = draw_histories(held, bounds, rng)
        masked = (held.train + held.validation).tocsr()
        folded = torch.from_numpy(fold_in(histories, table))
        found = measure(rank_items(folded, torch.from_numpy(items), masked, who, CUTOFF), held, who)
        popular = rank_scores(lambda asked: np.tile(popularity, (len(asked), 1)), masked, who, CUTOFF)
        (test,) = compare_pairs({"folded": found[0], "popular": measure(popular, held, who)[0]})
        margin = f"{test.difference:+.4f} [{test.low:+.4f}, {test.high:+.4f}] p = {test.p_value:.2g}"
        rows.append([name, len(who), *(f"{each.mean():.4f}" for each in found), margin])
    who = np.flatnonzero(np.diff(others.test.indptr)).astype(np.int64)
    masked = (others.train + others.validation).tocsr()
    ranked = rank_items(torch.from_numpy(vectors), torch.from_numpy(items), masked, who, CUTOFF)
    rows.append(["trained", len(who), *(f"{each.mean():.4f}" for each in measure(ranked, others, who)), ""])
    click.echo(f"{data.name}: {len(new)} new users, {settings}")
    click.echo(tabulate(rows, ["items", "users", "Recall@20", "NDCG@20", "Recall@20 beyond popularity"]))


def take_users(data: Interactions, users: Rows) -> Interactions:
    """The same items, some of the users."""
    parts = {name: getattr(data, name)[users].tocsr() for name in ("train", "validation", "test")}
    return replace(data, user_ids=data.user_ids[users], **parts)


def train(data: Interactions, work: Path) -> Run:
    """A student of a teacher that knows these users alone."""
    if not (work / "teacher" / METRICS_FILE).exists():
        run_job(build_job("scratch", TEACHER), data, work / "teacher")
    if not (work / "student" / METRICS_FILE).exists():
        run_job(build_job("ce", STUDENT), data, work / "student", teacher=open_run(work / "teacher"))
    return open_run(work / "student", data)


def draw_histories(data: Interactions, bounds: tuple[int, int], rng: np.random.Generator) -> tuple[sp.csr_matrix, Rows]:
    """Cut each user's training items to a length drawn between the bounds; also the users who have that many."""
    low, high = bounds
    who = np.flatnonzero((np.diff(data.train.indptr) >= low) & (np.diff(data.test.indptr) > 0)).astype(np.int64)
    if high >= data.num_items:
        return data.train, who
    lengths = rng.integers(low, high + 1, data.num_users)
    cut = [cut_histories(data.train[user], int(length), rng) for user, length in enumerate(lengths)]
    return sp.vstack(cut, format="csr"), who


def measure(ranked: Rows, data: Interactions, users: Rows) -> tuple[Values, Values]:
    """Recall@20 and NDCG@20 of each user."""
    measured = measure_ranking(ranked, data.test, users, [CUTOFF])
    return measured[f"Recall@{CUTOFF}"], measured[f"NDCG@{CUTOFF}"]


if __name__ == "__main__":
    main()
