"""What the runs recommend: quality user by user, and how far they lean to what is popular anyway."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from distill.data.interactions import Interactions
from distill.evaluation.metrics import overlap, recall_at_k
from distill.evaluation.ranking import find_hits, rank_items
from distill.report.material import Group, Material
from distill.report.section import NOTHING, Cell, Chart, LeftOut, Section, Table, mean_and_spread
from distill.report.svg import MUTED, colour, dash, page_style, render
from distill.run import Run

CUTOFF = 20
DECILES = 10
TITLE = "Popularity"

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Lists:
    """The top-20 lists of one run for the users with test items.

    Attributes:
        items: What is recommended, int32 of shape (B, 20).
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
    num_relevant = np.diff(data.test.indptr)
    users = np.flatnonzero(num_relevant).astype(np.int64)
    cutoff = min(CUTOFF, data.num_items)
    embeddings = torch.from_numpy(run.user_embeddings), torch.from_numpy(run.item_embeddings)
    ranked = rank_items(*embeddings, data.train, users, cutoff)
    recall = recall_at_k(find_hits(ranked, data.test, users), num_relevant[users], cutoff)
    return Lists(ranked.astype(np.int32), recall, share_by_decile(ranked.ravel(), popularity_deciles(data)))


def popularity_deciles(data: Interactions) -> npt.NDArray[np.int64]:
    """The tenth of the catalogue in which each item stands by training interactions, 0 the least popular, (|I|,)."""
    counts = np.bincount(data.train.indices, minlength=data.num_items)
    ranks = np.empty(data.num_items, dtype=np.int64)
    ranks[np.argsort(counts, kind="stable")] = np.arange(data.num_items)
    return ranks * DECILES // data.num_items


def share_by_decile(items: npt.NDArray[np.integer], deciles: npt.NDArray[np.int64]) -> Values:
    """Share of some items (with repetitions) in each decile, shape (10,)."""
    counts = np.bincount(deciles[items], minlength=DECILES)
    shares: Values = counts / max(counts.sum(), 1)
    return shares


def build_popularity(material: Material, lists: Mapping[Path, Lists]) -> Section | LeftOut:
    """Popularity and coverage of what is recommended, and with data where in the catalogue it comes from.

    Args:
        material: Its groups.
        lists: From `rank_all`.
    """
    if not any(f"Popularity@{CUTOFF}" in run.metrics.get("test", {}) for run in material.runs):
        return LeftOut(TITLE, "measure the runs on a test split with 'lowpass evaluate RUN --data DATA --save'")
    parts: list[Table | Chart] = [_tabulate(material, lists)]
    if material.data is not None and lists:
        parts.append(_draw(material, material.data, lists))
    lead = (
        f"Popularity@{CUTOFF} is the mean number of training interactions of a recommended item, Coverage@{CUTOFF} the "
        "share of the catalogue that is recommended to anybody; the last column tells how much of the teacher's choice "
        "a student repeats. A student with fewer dimensions tends to fall back on what is popular; how far, compared "
        "with its teacher, is seen here."
    )
    if not lists:
        lead += " With --data, lists are compared with the teacher's, and the deciles of popularity are drawn."
    return Section("popularity", TITLE, lead, parts)


def _tabulate(material: Material, lists: Mapping[Path, Lists]) -> Table:
    names = (f"Popularity@{CUTOFF}", f"Coverage@{CUTOFF}")
    teacher = material.teacher.metrics.get("test", {}) if material.teacher is not None else {}
    rows = []
    for group in material.groups:
        reports = [run.metrics["test"] for run in group.runs if "test" in run.metrics]
        cells: list[Cell | str] = [Cell(group.name, colour=group.colour)]
        for name, digits in zip(names, (1, 4), strict=True):
            values = [report[name] for report in reports if name in report]
            ratio = f"{np.mean(values) / teacher[name]:.2f}×" if values and teacher.get(name) else NOTHING
            cells += [mean_and_spread(values, digits), ratio]
        rows.append([*cells, _shared_with_teacher(material, group, lists)])
    shared = f"of the teacher's top {CUTOFF}"
    header = ["run", names[0], "of the teacher's", names[1], "of the teacher's", shared]
    return Table("Users with test items, mean ± standard deviation over seeds", header, rows)


def _shared_with_teacher(material: Material, group: Group, lists: Mapping[Path, Lists]) -> str:
    if material.teacher is None or not lists:
        return NOTHING
    chosen = lists[material.teacher.path].items
    return mean_and_spread([float(overlap(lists[run.path].items, chosen).mean()) for run in group.runs], 3)


def _draw(material: Material, data: Interactions, lists: Mapping[Path, Lists]) -> Chart:
    places = np.arange(1, DECILES + 1)
    taken = share_by_decile(data.test.indices, popularity_deciles(data))
    with page_style():
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.bar(places, 100 * taken, color=MUTED, alpha=0.25, width=0.8)
        for group in material.groups:
            shares = np.mean([lists[run.path].deciles for run in group.runs], axis=0)
            axes.plot(places, 100 * shares, color=colour(group.colour), linestyle=dash(group.colour), marker="o",
                      markersize=3.5, linewidth=1.6)  # fmt: skip
        axes.set_xticks(places)
        axes.grid(visible=False, axis="x")
        axes.set_xlabel("tenth of the catalogue by popularity, the most popular on the right")
        axes.set_ylabel("share of the list, %")
        axes.set_ylim(bottom=0)
        svg = render(figure, "deciles", "Share of recommended items in each tenth of the catalogue by popularity")
    caption = (
        f"Where the {CUTOFF} recommended items stand in the catalogue, mean over seeds. Bars: the items that users "
        "took in the test split."
    )
    return Chart(svg, caption, [(group.name, group.colour) for group in material.groups])
