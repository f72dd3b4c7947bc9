"""The command `python -m results.continued`: what going on from yesterday keeps and costs, day by day.

Each day has a teacher and a student from nothing, and both gone on from yesterday's, which went on themselves: so
what is lost in a day adds up. A run that is there is not made again. Times are processor seconds, since others work on
the machine: of training steps, and of all that a run takes (blend, evaluation, drift).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

import lowpass
from distill.commands.options import DIRECTORY, FILE
from distill.data.interactions import Interactions, load_interactions, save_interactions
from distill.evaluation.drift import CUTOFF, LEAST_OVERLAP, compare_lists
from distill.evaluation.protocol import EvaluationReport, evaluate
from distill.report.tables import Table, render_markdown
from distill.run import Run, open_run
from distill.storage import write_file
from distill.training.checkpoint import STATE_FILE
from distill.training.job import RECOMMENDED_METHOD, build_job, run_job
from results.days import DAILY, cut_days, moved_users

TEACHER, STUDENT = "teacher", "student"
KINDS = {TEACHER: ("scratch", 64), STUDENT: (RECOMMENDED_METHOD, 20)}
"""Role → method and dimension."""
ANEW, CONTINUED = "anew", "continued"
COST_FILE = "cost.json"
METRICS = ("Recall@20", "NDCG@10")
PAGE = """\
# Going on from yesterday

Written by `python -m results.continued --out results/notes/continued.md`;
[measuring.md](../../docs/measuring.md#going-on-from-yesterday) says what it means.

A base of half the interactions, then days that bring a tenth each. Each day a BPRMF teacher of 64 numbers and a student
of 20 by the default method are trained on all interactions until then, from nothing and gone on from yesterday's, which
went on themselves. Test of that day's split by time: continued / from nothing = share ± paired standard error over
users; "moved" users are new or have new interactions. Times are processor seconds of teacher and student together: of
training steps, and of all that the runs take (co-teachers, evaluation, drift). In the last row ± is the standard error
of the mean over days and seeds."""


@dataclass(frozen=True)
class Place:
    """Where the days and runs of one data set are.

    Attributes:
        folder: Of the data set.
        seed: Of the trainings.
    """

    folder: Path
    seed: int

    def data(self, day: int) -> Path:
        """A day's data directory."""
        return self.folder / f"day-{day}"

    def run(self, role: str, day: int, kind: str) -> Path:
        """A run directory; the base has nothing to go on from."""
        return self.folder / f"{role}-{day}-{kind if day else ANEW}-{self.seed}"


def prepare_days(name: str, sources: Path, place: Place, num_days: int) -> None:
    """Prepare the days that are not there."""
    if all(place.data(day).exists() for day in range(num_days + 1)):
        return
    for day, data in enumerate(cut_days(name, sources / name, num_days)):
        if not place.data(day).exists():
            save_interactions(data, place.data(day))


def train_day(place: Place, day: int) -> None:
    """Train what is missing of a day: teacher and student from nothing, then gone on from yesterday's."""
    data = load_interactions(place.data(day))
    for kind in (ANEW, CONTINUED) if day else (ANEW,):
        for role, (method, dim) in KINDS.items():
            out = place.run(role, day, kind)
            if (out / COST_FILE).exists():
                continue
            given: dict[str, Any] = {"dim": dim, "seed": place.seed}
            if kind == CONTINUED:
                given["continue_from"] = str(place.run(role, day - 1, CONTINUED))
            teacher = open_run(place.run(TEACHER, day, kind)) if role == STUDENT else None
            started = time.process_time()
            run_job(build_job(method, given), data, out, teacher=teacher, resume=(out / STATE_FILE).exists())
            cost = {"processor_seconds": round(time.process_time() - started, 2)}
            write_file(out / COST_FILE, (json.dumps(cost) + "\n").encode())


@dataclass(frozen=True)
class Day:
    """What a day shows of one seed, from nothing and continued.

    Attributes:
        day: Its number.
        counts: Users and items, and how many of each are new.
        kept: Metric → its mean continued, and from nothing, over all users and over moved ones: shape (2, 2).
        errors: Metric → paired standard error of the difference, as a share of the mean from nothing, over the same.
        steps: Processor seconds of training steps: shape (2 roles, 2), continued and from nothing.
        costs: The same of all that the runs took.
        drift: Which student → overlap with yesterday's.
    """

    day: int
    counts: Mapping[str, int]
    kept: Mapping[str, npt.NDArray[np.float64]]
    errors: Mapping[str, npt.NDArray[np.float64]]
    steps: npt.NDArray[np.float64]
    costs: npt.NDArray[np.float64]
    drift: Mapping[str, float]


def read_days(place: Place, num_days: int) -> Iterator[Day]:
    """Measure the days whose runs are all there."""
    for day in range(1, num_days + 1):
        paths = [[place.run(role, day, kind) for kind in (CONTINUED, ANEW)] for role in KINDS]
        if all((path / COST_FILE).exists() for pair in paths for path in pair):
            yield _measure(place, day, paths)


def _measure(place: Place, day: int, paths: list[list[Path]]) -> Day:
    before, data = load_interactions(place.data(day - 1)), load_interactions(place.data(day))
    runs = [[open_run(path, data) for path in pair] for pair in paths]
    reports = [evaluate(run.user_embeddings, run.item_embeddings, data) for run in runs[1]]
    moved = moved_users(before, data)[reports[0].users]
    kept, errors = {}, {}
    for metric in METRICS:
        kept[metric], errors[metric] = _compare(reports, metric, moved)
    told = runs[1][0].metrics["continued"]
    counts = {"users": data.num_users, "items": data.num_items, "moved": int(moved.sum())}
    costs = [[json.loads((path / COST_FILE).read_text())["processor_seconds"] for path in pair] for pair in paths]
    return Day(
        day,
        {**counts, "users_new": told["users_new"], "items_new": told["items_new"]},
        kept,
        errors,
        np.array([[run.metrics["training"]["processor_seconds"] for run in pair] for pair in runs]),
        np.array(costs),
        _drifts(open_run(place.run(STUDENT, day - 1, CONTINUED)), runs[1], data),
    )


def _compare(
    reports: list[EvaluationReport], metric: str, moved: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    values = np.array([report.per_user[metric] for report in reports])
    means, errors = [], []
    for users in (np.ones_like(moved), moved):
        chosen = values[:, users]
        means.append(chosen.mean(axis=1))
        errors.append(np.std(chosen[0] - chosen[1], ddof=1) / np.sqrt(chosen.shape[1]) / chosen[1].mean())
    return np.array(means), np.array(errors)


def _drifts(yesterday: Run, students: list[Run], data: Interactions) -> dict[str, float]:
    """Overlap with yesterday of today's student, of one from nothing, and of broken ones."""
    going_on, anew = students
    users, items = going_on.user_embeddings, going_on.item_embeddings
    rng = np.random.default_rng(0)
    found = {
        "continued": (users, items),
        "from nothing": (anew.user_embeddings, anew.item_embeddings),
        "items in another order": (users, items[rng.permutation(len(items))]),
        "random": (rng.normal(size=users.shape), rng.normal(size=items.shape)),
    }
    return {name: compare_lists(yesterday, pair, data).overlap for name, pair in found.items()}


def render_days(name: str, days: Mapping[int, list[Day]]) -> str:
    """Lay out the days of a data set.

    Args:
        name: Of `DAILY`.
        days: Seed → its days.
    """
    rows = [_row(seed, day) for seed, own in days.items() for day in own]
    every = [day for own in days.values() for day in own]
    header = ["day", "seed", "users (new)", "items (new)", *(f"{metric}, {whom}" for metric in METRICS
              for whom in ("all", "moved")), "steps, s", "share", "all, s", "share"]  # fmt: skip
    drifts = [[kind, f"{np.mean(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}"] for kind, values in
              ((kind, [day.drift[kind] for day in every]) for kind in every[0].drift)]  # fmt: skip
    times = "its own times" if DAILY[name].has_times else "drawn times"
    return "\n\n".join([
        f"## {name}, {times}",
        render_markdown(Table("", header, [*rows, _summary(every)], words=2)),
        f"Overlap@{CUTOFF} with yesterday's student (bound {LEAST_OVERLAP:g}):",
        render_markdown(Table("", ["today's student", "mean", "least", "most"], drifts)),
    ])  # fmt: skip


def _row(seed: int, day: Day) -> list[str]:
    cells = [str(day.day), str(seed)]
    cells += [f"{day.counts[side]:,} ({day.counts[f'{side}_new']:,})" for side in ("users", "items")]
    for metric in METRICS:
        for whom in (0, 1):
            now, anew = day.kept[metric][whom]
            cells.append(f"{now:.4f} / {anew:.4f} = {now / anew:.1%} ± {day.errors[metric][whom]:.1%}")
    for seconds in (day.steps, day.costs):
        now, anew = seconds.sum(axis=0)
        cells += [f"{now:.1f} / {anew:.1f}", f"{now / anew:.1%}"]
    return cells


def _summary(days: list[Day]) -> list[str]:
    """Means over days and seeds; ± is the standard error of the mean of their shares."""
    cells = ["mean", "", "", ""]
    for metric in METRICS:
        for whom in (0, 1):
            shares = np.array([day.kept[metric][whom][0] / day.kept[metric][whom][1] for day in days])
            error = f" ± {np.std(shares, ddof=1) / np.sqrt(len(shares)):.1%}" if len(shares) > 1 else ""
            cells.append(f"{shares.mean():.1%}{error}")
    for kind in ("steps", "costs"):
        now, anew = np.sum([getattr(day, kind).sum(axis=0) for day in days], axis=0)
        cells += [f"{now:.1f} / {anew:.1f}", f"{now / anew:.1%}"]
    return cells


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--data", "names", multiple=True, default=tuple(DAILY), show_default=True, type=click.Choice(list(DAILY)))
@click.option("--sources", type=DIRECTORY, default="../shared/data", show_default=True,
              help="Folder of the public data sets.")  # fmt: skip
@click.option("--work", type=DIRECTORY, default="runs/continued", show_default=True,
              help="Days and runs; what is there is used again.")  # fmt: skip
@click.option("--days", "num_days", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seed", "seeds", type=int, multiple=True, default=(0,), show_default=True)
@click.option("--render", is_flag=True, help="Print what is there, and train nothing.")
@click.option("--out", type=FILE, help="Write the page too, such as results/notes/continued.md.")
def continued(
    names: tuple[str, ...], sources: Path, work: Path, num_days: int, seeds: tuple[int, ...], out: Path | None, *,
    render: bool,
) -> None:  # fmt: skip
    """Train a base and the days after it, from nothing and continued, and print what that keeps and costs.

    Example: python -m results.continued --data ml-100k --seed 0 --seed 1
    """
    page = [PAGE]
    for name in names:
        places = [Place(work / name, seed) for seed in seeds]
        for place in () if render else places:
            prepare_days(name, sources, place, num_days)
            for day in range(num_days + 1):
                train_day(place, day)
        found = {place.seed: list(read_days(place, num_days)) for place in places}
        if any(found.values()):
            page.append(render_days(name, found))
            click.echo(page[-1] + "\n")
    if out is not None:
        write_file(out, ("\n\n".join(page) + "\n").encode())


if __name__ == "__main__":
    sys.exit(lowpass.main(command=continued, name="python -m results.continued"))
