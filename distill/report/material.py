"""What a report is made of, read and checked: runs in groups, their teacher, and what they learned and recommend.

The frontier is handed over by whoever measured it (`export.frontier`); no file of another package is read here.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from distill.data.interactions import Interactions, load_interactions
from distill.errors import RunError
from distill.evaluation.comparison import SPLITS, group_runs, label, require_one_convention
from distill.evaluation.metrics import measure_ranking
from distill.evaluation.protocol import Protocol
from distill.evaluation.ranking import rank_items
from distill.graph.analysis import Analysis, read_analysis
from distill.run import HISTORY_FILE, Run, features_fingerprint, open_run

METRIC = "Recall@20"
CUTOFF = 20
DECILES = 10
CLOCKS = ("processor_seconds", "seconds")
"""Columns of a history that tell time, the better one first: a busy machine stretches the other."""
SHORTEST = 1e-3
"""Seconds are written to the millisecond, and a logarithmic axis has no place for 0."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed.

    Attributes:
        name: Unique in the report.
        runs: One or more.
        colour: Number of its colour, the same in every figure; 0 is the teacher's.
    """

    name: str
    runs: tuple[Run, ...]
    colour: int

    @property
    def is_teacher(self) -> bool:
        """Whether the students' teacher is among its runs."""
        return self.colour == 0


@dataclass(frozen=True)
class FrontierPoint:
    """A compressed model that could be served, as it was measured.

    Attributes:
        name: Unique in the frontier.
        method: What made it; "teacher" for the teacher itself.
        precision: "float32", "float16", "int8", or "pq…" for codes of a product quantiser.
        kept: Share of the teacher's validation Recall@20.
        kept_interval: 95 % confidence interval of `kept`, over users.
        kept_on_test: The same share on test, or None.
        bytes_per_item: Of the index.
        bytes_per_user: Of a user's vector.
        p50_us: Median time of a query, in microseconds.
        p99_us: 99th percentile of it.
        training_seconds: None where nothing was trained.
        is_graph: Whether a graph (HNSW) is searched, not every item.
        servable: Whether a bundle can hold it.
        unbeaten: Whether no other point is better in quality, bytes and time at once.
        fits: Whether it is servable and within the limits.
        taught_by: The teacher and co-teachers of a student, in words; empty for what nobody taught.
    """

    name: str
    method: str
    precision: str
    kept: float
    kept_interval: tuple[float, float]
    kept_on_test: float | None
    bytes_per_item: float
    bytes_per_user: float
    p50_us: float
    p99_us: float
    training_seconds: float | None
    is_graph: bool
    servable: bool
    unbeaten: bool
    fits: bool
    taught_by: str = ""


@dataclass(frozen=True)
class Frontier:
    """Every compressed model of one teacher, and the one to serve.

    Attributes:
        data_name: Of the data set.
        data_fingerprint: Of its content.
        teacher_dim: d of the teacher.
        points: All that was measured.
        recommended: Name of a point, or None where none fits.
        limits: The budget: "min_kept", "max_bytes_per_item" and "max_p99_ms"; None is no limit.
        sentences: Why that one, and what else a reader must know.
        commands: What to run next.
    """

    data_name: str
    data_fingerprint: str
    teacher_dim: int
    points: tuple[FrontierPoint, ...]
    recommended: str | None
    limits: Mapping[str, float | None]
    sentences: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()


@dataclass(frozen=True)
class Material:
    """Everything the sections may draw on.

    Attributes:
        data_name: Of the data set.
        groups: The teacher's first, where there is one.
        teacher: The run the students learned from, or None where it is not at hand.
        data: The interactions, or None.
        analysis: What `lowpass analyze` found, or None.
        frontier: What `lowpass frontier` measured, or None.
    """

    data_name: str
    groups: tuple[Group, ...]
    teacher: Run | None
    data: Interactions | None = None
    analysis: Analysis | None = None
    frontier: Frontier | None = None

    @property
    def runs(self) -> list[Run]:
        """All runs, group by group."""
        return [run for group in self.groups for run in group.runs]

    @property
    def students(self) -> list[Group]:
        """All groups but the teacher's."""
        return [group for group in self.groups if not group.is_teacher]

    def teacher_quality(self, report: str = "test") -> float | None:
        """Recall@20 of the teacher itself in one of its reports, such as "test_all_users"."""
        found: Mapping[str, float] = {} if self.teacher is None else self.teacher.metrics.get(report, {})
        return found.get(METRIC)


def gather(
    paths: Sequence[Path], data: Path | None = None, analysis: Path | None = None, frontier: Frontier | None = None
) -> Material:
    """Read what a report is about.

    Args:
        paths: Run directories; the teacher's need not be among them.
        data: The data directory.
        analysis: `analysis.json` of `lowpass analyze --out`.
        frontier: What `lowpass frontier` measured.

    Raises:
        RunError: A run or file is unreadable, or they are about different data or were measured on different users.
    """
    runs = [open_run(path) for path in dict.fromkeys(paths)]
    about = runs[0].config["data"]
    for run in runs:
        if run.config["data"]["fingerprint"] != about["fingerprint"]:
            raise RunError(
                f"{run.path}: was trained on other data than {runs[0].path}; report on one data set at a time"
            )
    interactions = None if data is None else load_interactions(data)
    if interactions is not None:
        runs[0].require_same_data(interactions)
    analysed = None if analysis is None else read_analysis(analysis)
    if analysed is not None and analysed.data != about["name"]:
        raise RunError(f"{analysis}: is about data set '{analysed.data}', the runs about '{about['name']}'")
    if frontier is not None and frontier.data_fingerprint != about["fingerprint"]:
        raise RunError("--frontier: is about other data than the runs; run 'lowpass frontier' on theirs")
    teacher = find_teacher(runs)
    if teacher is not None and all(run is not teacher for run in runs):
        runs.insert(0, teacher)
    for split, suffix in product(SPLITS, ("", "_all_users")):
        require_one_convention(runs, split + suffix)
    return Material(about["name"], build_groups(runs, teacher), teacher, interactions, analysed, frontier)


def find_teacher(runs: Sequence[Run]) -> Run | None:
    """The run that the students among `runs` learned from: one of them, or where their settings say it was.

    Returns:
        None where there is no student, no teacher to be found, or more than one.
    """
    students = [run for run in runs if run.config.get("teacher_fingerprint")]
    wanted = {run.config["teacher_fingerprint"] for run in students}
    if len(wanted) != 1:
        return None
    for run in runs:
        if features_fingerprint(run) in wanted:
            return run
    for path in {Path(run.config["teacher"]) for run in students}:
        try:
            found = open_run(path)
        except RunError:
            continue
        if features_fingerprint(found) in wanted:
            return found
    return None


def build_groups(runs: Sequence[Run], teacher: Run | None = None) -> tuple[Group, ...]:
    """Group runs by all settings but the seed, the teacher's group first, each under a name of its own."""
    grouped = group_runs(runs)
    grouped.sort(key=lambda group: all(run is not teacher for run in group))
    names = [f"{label(group[0].config)}, d {group[0].dim}" for group in grouped]
    if teacher is not None:
        names[0] = f"teacher ({names[0]})"
    repeated = Counter(names)
    return tuple(
        Group(name if repeated[name] == 1 else f"{name} ({group[0].path})", tuple(group), number)
        for number, (name, group) in enumerate(zip(names, grouped, strict=True), start=int(teacher is None))
    )


@dataclass(frozen=True)
class Curve:
    """The history of one run, one entry an evaluation.

    Attributes:
        epochs: Shape (n,).
        seconds: Training time, evaluation left out, shape (n,).
        values: Validation Recall@20, mean over all users, shape (n,).
    """

    epochs: Values
    seconds: Values
    values: Values

    def best_within(self, seconds: float) -> float | None:
        """The best value reached within a training time; a run that ended earlier keeps its best."""
        reached = self.values[self.seconds <= seconds]
        return float(reached.max()) if len(reached) else None


def read_histories(runs: Sequence[Run]) -> tuple[dict[Path, Curve], str]:
    """Run directory → curve for each run that has a history, and the clock that all of these have."""
    tables = {run.path: _read_rows(run.path / HISTORY_FILE) for run in runs if (run.path / HISTORY_FILE).is_file()}
    clock = next((name for name in CLOCKS if all(name in rows[0] for rows in tables.values() if rows)), CLOCKS[-1])
    return {path: _build_curve(rows, clock) for path, rows in tables.items() if rows}, clock


def _read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _build_curve(rows: list[dict[str, str]], clock: str) -> Curve:
    epochs, seconds, values = (np.array([float(row[name]) for row in rows]) for name in ("epoch", clock, METRIC))
    return Curve(epochs, np.maximum(seconds, SHORTEST), values)


@dataclass(frozen=True)
class Lists:
    """The top-20 lists of one run for the B users with test items, or a sample of them.

    Attributes:
        items: int32, shape (B, 20).
        recall: Test Recall@20 of each user, shape (B,).
        deciles: Share of the recommended items in each tenth of the catalogue by popularity, the least popular tenth
            first, shape (10,).
    """

    items: npt.NDArray[np.int32]
    recall: Values
    deciles: Values


def rank_all(material: Material, *, progress: bool = False) -> dict[Path, Lists]:
    """Rank the catalogue once a run.

    Args:
        material: Its runs and data.
        progress: Show a bar where somebody looks.

    Returns:
        Run directory → its lists; empty without data or without test items.
    """
    data = material.data
    if data is None or not data.test.nnz:
        return {}
    runs = tqdm(material.runs, desc="ranking", unit="run", disable=None if progress else True)
    return {run.path: rank_run(run, data) for run in runs}


def rank_run(run: Run, data: Interactions) -> Lists:
    """The lists of one run, training items left out, as in the default convention of `lowpass evaluate`."""
    users = Protocol().sample(data).users
    cutoff = min(CUTOFF, data.num_items)
    ranked = rank_items(run.user_embeddings, run.item_embeddings, data.train, users, cutoff)
    recall = measure_ranking(ranked, data.test, users, [cutoff])[f"Recall@{cutoff}"]
    return Lists(ranked.astype(np.int32), recall, share_by_decile(ranked.ravel(), popularity_deciles(data)))


def popularity_deciles(data: Interactions) -> npt.NDArray[np.int64]:
    """The tenth of the catalogue in which each item stands by training interactions, 0 the least popular, (|I|,)."""
    ranks = np.empty(data.num_items, dtype=np.int64)
    ranks[np.argsort(data.item_popularity, kind="stable")] = np.arange(data.num_items)
    return ranks * DECILES // data.num_items


def share_by_decile(items: npt.NDArray[np.integer], deciles: npt.NDArray[np.int64]) -> Values:
    """Share of some items (with repetitions) in each decile, shape (10,)."""
    counts = np.bincount(deciles[items], minlength=DECILES)
    shares: Values = counts / max(counts.sum(), 1)
    return shares
