"""The frequency view: spectra, and what share of each band of the teacher the students kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill.data.interactions import Interactions
from distill.graph.analysis import Graph, analyze, build_graph, build_groups
from distill.report.analysis_figures import LOWEST_KEPT, LOWEST_SHARE
from distill.report.material import Group, Material
from distill.report.section import NOTHING, Cell, Chart, LeftOut, Section, Table
from distill.report.svg import GRID, INK, colour, dash, page_style, plain_numbers, render
from distill.run import Run

TITLE = "Frequencies"
SMALL_GRAPH = 3_000
"""Entities up to which the page computes the analysis itself: about ten seconds of eigenvectors."""
GRAPH: Graph = "bipartite"
NUM_GROUPS = 21
NUM_NEIGHBORS = 5
"""Of the co-occurrence graph, which is not the one drawn."""
SEED = 0
CAPTION = (
    "Left: share of the teacher's energy that was kept in each band; gaps where the teacher has none. "
    "Right: how the energy of the embeddings is spread; the shaded steps are the frequencies themselves, "
    "which is what noise would look like."
)

Values = npt.NDArray[np.float64]


def build_frequencies(material: Material, *, progress: bool = False) -> Section | LeftOut:
    """Draw what `lowpass analyze` found; where that is not at hand and the graph is small, find it first."""
    found = material.analysis
    if found is None:
        remedy = "run 'lowpass analyze DATA RUN… --teacher RUN --out DIR' and give --analysis DIR/analysis.json"
        data, teacher = material.data, material.teacher
        if data is None or teacher is None:
            return LeftOut(TITLE, remedy)
        if data.num_users + data.num_items > SMALL_GRAPH:
            return LeftOut(TITLE, f"the graph has more than {SMALL_GRAPH:,} entities: {remedy}")
        students = [group.runs[0] for group in material.groups if not group.is_teacher]
        found = compute(data, teacher, students, progress=progress)
    colours = match_colours(found["students"], material.groups)
    lead = (
        f"Embeddings split over the frequencies of the {found.get('graph', 'user–item')} graph: low ones are what "
        "neighbours share, high ones what sets them apart. A student is measured through the best linear projector "
        "into its teacher's space, fitted afterwards; kept is 1 − loss / the teacher's energy."
    )
    teacher_name = next((group.name for group in material.groups if group.is_teacher), "teacher")
    legend = [(teacher_name, 0), *dict(colours).items()]
    chart = Chart(_draw(found, [number for _, number in colours]), CAPTION, legend)
    return Section("frequencies", TITLE, lead, [chart, _tabulate(found, colours)])


def compute(data: Interactions, teacher: Run, students: Sequence[Run], *, progress: bool = False) -> dict[str, Any]:
    """The analysis of some students of one teacher, in the shape of `analysis.json`."""
    adjacency = build_graph(data, GRAPH, NUM_NEIGHBORS)
    groups = build_groups(adjacency, NUM_GROUPS, "equal-width", np.random.default_rng(SEED))
    names = [str(run.path) for run in students]
    return {"graph": GRAPH, **analyze(groups, teacher, students, names, progress=progress).as_dict()}


def match_colours(students: Sequence[Mapping[str, Any]], groups: Sequence[Group]) -> list[tuple[str, int]]:
    """Name and colour of each analysed student: its group's where its run is on the page, else new ones."""
    known = {str(run.path): group for group in groups for run in group.runs}
    by_name: dict[str, list[Group]] = {}
    for path, group in known.items():
        by_name.setdefault(Path(path).resolve().name, []).append(group)
    matched: list[tuple[str, int]] = []
    strangers: dict[str, int] = {}
    for student in students:
        name = str(student["run"])
        candidates = [known[name]] if name in known else by_name.get(name, [])
        if len({group.name for group in candidates}) == 1:
            matched.append((candidates[0].name, candidates[0].colour))
        else:
            last = max(group.colour for group in groups)
            matched.append((name, strangers.setdefault(name, last + 1 + len(strangers))))
    return matched


def _tabulate(found: Mapping[str, Any], colours: Sequence[tuple[str, int]]) -> Table:
    rows: list[list[Cell | str]] = []
    for student, (name, number) in zip(found["students"], colours, strict=True):
        quality = student.get("Recall@20")
        shown = NOTHING if quality is None else f"{quality:.4f}"
        rows.append([Cell(name, colour=number), str(student["dim"]), f"{student['kept_in_all']:.1%}", shown])
    return Table("All frequencies together", ["run", "d", "kept of the energy", "test Recall@20"], rows)


def _draw(found: Mapping[str, Any], numbers: Sequence[int]) -> str:
    groups = found["groups"]
    edges = np.array([(group["from"], group["to"]) for group in groups], dtype=np.float64)
    even = found.get("grouping", "equal-width") == "equal-width"
    places = edges.mean(axis=1) if even else np.arange(1.0, len(edges) + 1)
    with page_style():
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        kept, spectrum = figure.subplots(1, 2)
        for student, number in zip(found["students"], numbers, strict=True):
            style = {
                "color": colour(number),
                "linestyle": dash(number),
                "linewidth": 1.3,
                "marker": "o",
                "markersize": 2.5,
            }
            shares = np.array([np.nan if share is None else share for share in student["kept"]])
            kept.plot(places, 100 * shares, **style)
            spectrum.plot(places, np.where(np.isnan(shares), np.nan, _share(student["energies"])), **style)
        _finish_kept(kept)
        _finish_spectrum(spectrum, places, found)
        for axes in (kept, spectrum):
            axes.set_xlabel("frequency λ" if even else "knowledge group")
            axes.set_xlim(*((0, 2) if even else (0.5, len(edges) + 0.5)))
        return render(figure, "frequencies", "Share of the teacher kept in each band, and spectra of all runs")


def _finish_kept(axes: Axes) -> None:
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_ylabel("kept of the teacher, %")
    axes.set_ylim(max(axes.get_ylim()[0], 100 * LOWEST_KEPT), 103)


def _finish_spectrum(axes: Axes, places: Values, found: Mapping[str, Any]) -> None:
    frequencies = _share([group["frequencies"] for group in found["groups"]])
    occupied = np.array([share is not None for share in found["students"][0]["kept"]])
    teacher = np.where(occupied, _share(found["teacher"]["energies"]), np.nan)
    axes.bar(places, frequencies, places[1] - places[0], color=GRID, zorder=0)
    axes.plot(places, teacher, color=INK, linewidth=2, marker="o", markersize=3, zorder=2.5)
    axes.set_yscale("log")
    axes.set_ylabel("share of the energy")
    axes.set_ylim(max(np.nanmin(teacher) / 3, LOWEST_SHARE), 1)
    plain_numbers(axes)


def _share(values: Sequence[float]) -> Values:
    shares: Values = np.asarray(values, dtype=np.float64) / np.sum(values)
    return shares
