"""What a page has: each section turns the material into tables, figures and words, or says which option brings it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from distill.evaluation.comparison import compare_runs
from distill.evaluation.significance import average_seeds, compare_pairs
from distill.graph.analysis import View, analyze_data
from distill.report.blends import blends_of, compare_blends
from distill.report.figures import draw_frequencies, draw_frontier, draw_learning, draw_popularity, encode_svg
from distill.report.figures.frontier import TEACHER
from distill.report.figures.learning import name_clock
from distill.report.material import CUTOFF, METRIC, Group, Lists, Material, rank_all, read_histories
from distill.report.tables import (
    Cell,
    Table,
    tabulate_differences,
    tabulate_frontier,
    tabulate_learning,
    tabulate_pairs,
    tabulate_popularity,
    tabulate_runs,
    tabulate_settings,
    tabulate_students,
)
from distill.run import HISTORY_FILE

CONVENTIONS = {
    "with-relevant": ("test", "Mean over users with relevant items"),
    "all": ("test_all_users", "Mean over all users, zeros for those without relevant items"),
}
"""How quality is averaged → the report of a run that is read, and what it is called."""
SMALL_GRAPH = 3_000
"""Entities up to which the page computes the analysis itself: about ten seconds of eigenvectors."""


@dataclass(frozen=True)
class Chart:
    """A figure.

    Attributes:
        svg: From `encode_svg`; nothing in it comes from the user.
        caption: Below it.
        legend: Name and number of the colour of each series.
    """

    svg: str
    caption: str
    legend: Sequence[tuple[str, int]] = ()
    kind: str = field(default="chart", init=False)


@dataclass(frozen=True)
class Text:
    """A paragraph, or literal text that is folded away under a title."""

    text: str
    title: str = ""
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        name: Its anchor.
        title: Its heading.
        lead: What it is about, in a sentence or two.
        parts: In order.
    """

    name: str
    title: str
    lead: str
    parts: Sequence[Table | Chart | Text]


@dataclass(frozen=True)
class LeftOut:
    """A section that is not on the page, and what brings it."""

    title: str
    remedy: str


def build_sections(material: Material, *, progress: bool = False) -> list[Section | LeftOut]:
    """All sections, in the order of the page, those without material as `LeftOut`.

    Args:
        material: What there is.
        progress: Show bars where somebody looks.
    """
    lists = rank_all(material, progress=progress)
    return [
        build_quality(material),
        build_significance(material, lists),
        build_learning(material),
        build_frequencies(material, progress=progress),
        build_popularity(material, lists),
        build_frontier(material),
        build_settings(material),
    ]


def build_summary(material: Material) -> list[tuple[str, str, str]]:
    """The few numbers that open the page: a heading, the number, and what it is."""
    cards: list[tuple[str, str, str]] = []
    whole = material.teacher_quality()
    if material.teacher is not None and whole is not None:
        cards.append(("teacher", f"{whole:.4f}", f"test {METRIC} at d = {material.teacher.dim}"))
    scored = [(_mean(group, "validation"), group) for group in material.students]
    known = [(value, group) for value, group in scored if value is not None]
    if not known:
        return cards
    _, best = max(known, key=lambda pair: pair[0])
    reached = _mean(best, "test")
    if reached is not None:
        cards.append(("best on validation", f"{reached:.4f}", f"test {METRIC}: {best.name}"))
        if whole and material.teacher is not None:
            dims = material.teacher.dim, best.runs[0].dim
            cards.append(("kept", f"{reached / whole:.1%}", f"of the teacher's test {METRIC}"))
            cards.append(("smaller", f"{dims[0] / dims[1]:.3g}×", f"d = {dims[1]} instead of {dims[0]}"))
    return cards


def _mean(group: Group, split: str) -> float | None:
    values = [run.metrics[split][METRIC] for run in group.runs if split in run.metrics]
    return float(np.mean(values)) if values else None


def build_quality(material: Material) -> Section:
    """One table a convention of averaging."""
    lead = (
        "The whole catalogue is ranked for every user, training items left out. Runs that differ only in their seed "
        "make one line: mean ± standard deviation over seeds. Validation is for choosing, test only reports. Bold is "
        f"the best student; kept is the share of the teacher's test {METRIC}."
    )
    if blends_of(material.runs):
        lead += " A blend is what a teacher and its co-teachers say together: students learned from it, none serves it."
    parts = [
        tabulate_runs(
            compare_runs(material.runs, average=average),
            material.groups,
            material.teacher_quality(report),
            caption,
            compare_blends(material.runs, average=average),
        )
        for average, (report, caption) in CONVENTIONS.items()
    ]
    return Section("comparison", "Quality", lead, parts)


def build_significance(material: Material, lists: Mapping[Path, Lists]) -> Section | LeftOut:
    """Every pair of groups, tested user by user; `lists` is from `rank_all`, empty without data."""
    title = "Are the differences more than chance?"
    if not lists:
        return LeftOut(title, "give --data, so that users can be compared one by one")
    if len(material.groups) < 2:
        return LeftOut(title, "give runs with different settings")
    per_user = {group.name: average_seeds([lists[run.path].recall for run in group.runs]) for group in material.groups}
    tests = compare_pairs(per_user)
    users = len(next(iter(per_user.values())))
    lead = (
        f"Test {METRIC} of each of {users:,} users with relevant items, averaged over seeds first; Student's paired "
        f"t over users, Holm's correction over all {len(tests)} pairs. It says what other users would show of these "
        "trained models, not what other seeds would."
    )
    parts = [tabulate_differences(material.groups, tests), tabulate_pairs(tests)]
    return Section("significance", title, lead, parts)


def build_learning(material: Material) -> Section | LeftOut:
    """Curves, and the table at equal training time."""
    curves, clock = read_histories(material.runs)
    if not curves:
        return LeftOut("Learning", f"give runs that were trained here: these have no {HISTORY_FILE}")
    lead = (
        f"Validation {METRIC}, mean over all users, at every evaluation; a line is a run. Training time is "
        f"{name_clock(clock)}, evaluation left out."
    )
    if any(run.path not in curves for run in material.runs):
        lead += " A level, dashed line is a run without a history."
    svg = encode_svg(
        draw_learning(material.groups, curves, clock, named=False),
        "curves",
        f"Validation {METRIC} against epochs and against training time",
    )
    chart = Chart(svg, "By epoch, and by training time (logarithmic).", _legend(material.groups))
    return Section("learning", "Learning", lead, [chart, tabulate_learning(material.groups, curves)])


def _legend(groups: Sequence[Group]) -> list[tuple[str, int]]:
    return [(group.name, group.colour) for group in groups]


def build_frequencies(material: Material, *, progress: bool = False) -> Section | LeftOut:
    """Draw what `lowpass analyze` found; where that is not at hand and the graph is small, find it first."""
    title = "Frequencies"
    analysis = material.analysis
    if analysis is None:
        remedy = "run 'lowpass analyze DATA RUN… --teacher RUN --out DIR' and give --analysis DIR/analysis.json"
        data, teacher = material.data, material.teacher
        if data is None or teacher is None:
            return LeftOut(title, remedy)
        if data.num_users + data.num_items > SMALL_GRAPH:
            return LeftOut(title, f"the graph has more than {SMALL_GRAPH:,} entities: {remedy}")
        students = [group.runs[0] for group in material.students]
        names = [str(run.path) for run in students]
        analysis = analyze_data(data, teacher, students, names, View(), progress=progress)
    matched = match_groups([student.name for student in analysis.students], material.groups)
    lead = (
        f"Embeddings split over the frequencies of the {analysis.view.graph} graph: low ones are what neighbours "
        "share, high ones what sets them apart. A student is measured through the best linear projector into its "
        "teacher's space, fitted afterwards; kept is 1 − loss / the teacher's energy."
    )
    caption = (
        "Left: share of the teacher's energy that was kept in each band; gaps where the teacher has none. Right: how "
        "the energy of the embeddings is spread; the shaded steps are the frequencies themselves, which is what noise "
        "would look like."
    )
    svg = encode_svg(
        draw_frequencies(analysis, [number for _, number in matched]),
        "frequencies",
        "Share of the teacher kept in each band, and spectra of all runs",
    )
    teacher_name = next((group.name for group in material.groups if group.is_teacher), TEACHER)
    chart = Chart(svg, caption, [(teacher_name, 0), *dict(matched).items()])
    table = tabulate_students(analysis, [Cell(name, colour=number) for name, number in matched])
    return Section("frequencies", title, lead, [chart, table])


def match_groups(names: Sequence[str], groups: Sequence[Group]) -> list[tuple[str, int]]:
    """Name and colour of each analysed student: its group's where its run is on the page, else new ones."""
    known = {str(run.path): group for group in groups for run in group.runs}
    by_name: dict[str, list[Group]] = {}
    for path, group in known.items():
        by_name.setdefault(Path(path).resolve().name, []).append(group)
    last = max(group.colour for group in groups)
    matched: list[tuple[str, int]] = []
    strangers: dict[str, int] = {}
    for name in names:
        candidates = [known[name]] if name in known else by_name.get(name, [])
        if len({group.name for group in candidates}) == 1:
            matched.append((candidates[0].name, candidates[0].colour))
        else:
            matched.append((name, strangers.setdefault(name, last + 1 + len(strangers))))
    return matched


def build_popularity(material: Material, lists: Mapping[Path, Lists]) -> Section | LeftOut:
    """Popularity and coverage of what is recommended, and with data where in the catalogue it comes from."""
    title = "Popularity"
    if not any(f"Popularity@{CUTOFF}" in run.metrics.get("test", {}) for run in material.runs):
        return LeftOut(title, "measure the runs on a test split with 'lowpass evaluate RUN --data DATA --save'")
    parts: list[Table | Chart] = [tabulate_popularity(material, lists)]
    lead = (
        f"Popularity@{CUTOFF} is the mean number of training interactions of a recommended item, Coverage@{CUTOFF} the "
        "share of the catalogue that is recommended to anybody; the last column tells how much of the teacher's choice "
        "a student repeats. A student with fewer dimensions tends to fall back on what is popular; how far, compared "
        "with its teacher, is seen here."
    )
    if material.data is not None and lists:
        svg = encode_svg(
            draw_popularity(material.groups, lists, material.data, named=False),
            "deciles",
            "Share of recommended items in each tenth of the catalogue by popularity",
        )
        caption = (
            f"Where the {CUTOFF} recommended items stand in the catalogue, mean over seeds. Bars: the items that users "
            "took in the test split."
        )
        parts.append(Chart(svg, caption, _legend(material.groups)))
    else:
        lead += " With --data, lists are compared with the teacher's, and the deciles of popularity are drawn."
    return Section("popularity", title, lead, parts)


def build_frontier(material: Material) -> Section | LeftOut:
    """Every candidate, the ones that no other beats, and the one to serve."""
    title, frontier = "The frontier", material.frontier
    if frontier is None:
        return LeftOut(title, "run 'lowpass frontier DATA --teacher RUN --out DIR' and give --frontier DIR")
    unbeaten = [point.name for point in frontier.points if point.unbeaten]
    numbers = {name: str(number) for number, name in enumerate(unbeaten, start=1)}
    colours = _match_methods([point.method for point in frontier.points], material.groups)
    chosen = frontier.recommended
    verdict = "No candidate fits" if chosen is None else f"{chosen} is recommended"
    limits = [f"{name.replace('_', ' ')} {value:g}" for name, value in frontier.limits.items() if value is not None]
    lead = (
        f"Every compressed model that could be served: what it keeps of the teacher's validation {METRIC}, what an "
        f"item takes, and how long a query takes. {verdict} within the limits {', '.join(limits) or '(none)'}."
    )
    labels = numbers if chosen is None else {chosen: "", **numbers}
    svg = encode_svg(
        draw_frontier(frontier, colours, labels),
        "frontier",
        "Share of the teacher kept against bytes an item and against query time",
    )
    caption = "Numbered: candidates that no other one beats; the table names them. Ringed: the recommended one."
    parts: list[Table | Chart | Text] = [Text(sentence.replace("`", "")) for sentence in frontier.sentences]
    parts += [Chart(svg, caption, list(colours.items())), *tabulate_frontier(frontier, colours, numbers)]
    if frontier.commands:
        parts.append(Text("\n".join(frontier.commands), title="What to run next"))
    return Section("frontier", title, lead, parts)


def _match_methods(methods: Sequence[str], groups: Sequence[Group]) -> dict[str, int]:
    """The colour of a group of the same method where the page has one, else a new one."""
    known = {str(group.runs[0].config["method"]): group.colour for group in reversed(groups) if not group.is_teacher}
    known[TEACHER] = 0
    names = list(dict.fromkeys(methods))
    last = max(group.colour for group in groups)
    new = [name for name in names if name not in known]
    return {name: known[name] if name in known else last + 1 + new.index(name) for name in names}


def build_settings(material: Material) -> Section:
    """What sets the runs apart, and every setting, run by run."""
    parts: list[Table | Text] = [*tabulate_settings(material.groups)]
    parts += [Text(json.dumps(run.config, indent=2, ensure_ascii=False), title=str(run.path)) for run in material.runs]
    return Section("settings", "Settings", "Everything that changes the result, as training recorded it.", parts)
