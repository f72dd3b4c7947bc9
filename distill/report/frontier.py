"""The frontier that `lowpass frontier` measured: what is kept against bytes and time. Only its JSON is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from distill.report.material import Group, Material
from distill.report.section import NOTHING, Cell, Chart, LeftOut, Section, Table, Text
from distill.report.svg import INK, MUTED, PAPER, colour, page_style, plain_numbers, render

TITLE = "The frontier"
TEACHER = "teacher"


def build_frontier(material: Material) -> Section | LeftOut:
    """Every candidate, the ones that no other beats, and the one to serve."""
    found = material.frontier
    if found is None:
        return LeftOut(
            TITLE, "run 'lowpass frontier DATA --teacher RUN --out DIR' and give --frontier DIR/frontier.json"
        )
    numbered = {name: number for number, name in enumerate(found["pareto"], start=1)}
    families = list(dict.fromkeys(str(candidate["method"]) for candidate in found["candidates"]))
    colours = _match_colours(families, material.groups)
    verdict = f"{found['recommended']} is recommended" if found["recommended"] else "No candidate fits"
    lead = (
        "Every compressed model that could be served: what it keeps of the teacher's validation Recall@20, what an "
        f"item takes, and how long a query takes. {verdict} within the limits {_limits(found['limits'])}."
    )
    parts: list[Table | Chart | Text] = [Text(str(each).replace("`", "")) for each in _sentences(found)]
    chart = Chart(
        _draw(found, colours, numbered),
        "Numbered: candidates that no other one beats; the table names them. Ringed: the recommended one.",
        [(method, colours[method]) for method in families],
    )
    first = [each for each in found["candidates"] if each["name"] in {*numbered, found["recommended"]}]
    others = [each for each in found["candidates"] if each not in first]
    caption = "Candidates that no other one beats, and the recommended one"
    parts += [chart, _tabulate(caption, first, colours, numbered, found["recommended"])]
    if others:
        caption = f"The other {len(others)} candidates"
        parts.append(_tabulate(caption, others, colours, numbered, found["recommended"], fold=True))
    parts += [Text("\n".join(str(command) for command in found.get("commands", ())), title="What to run next")]
    return Section("frontier", TITLE, lead, parts)


def _match_colours(methods: Sequence[str], groups: Sequence[Group]) -> dict[str, int]:
    """The colour of a group of the same method where the page has one, else a new one."""
    known = {str(group.runs[0].config["method"]): group.colour for group in reversed(groups) if not group.is_teacher}
    known[TEACHER] = 0
    last = max(group.colour for group in groups)
    new = [method for method in methods if method not in known]
    return {method: known[method] if method in known else last + 1 + new.index(method) for method in methods}


def _sentences(found: Mapping[str, Any]) -> list[str]:
    return [*found.get("reasons", ()), *found.get("notes", ())]


def _limits(limits: Mapping[str, Any]) -> str:
    shown = [f"{name.replace('_', ' ')} {value:g}" for name, value in limits.items() if value is not None]
    return ", ".join(shown) or "(none)"


def _tabulate(
    caption: str,
    candidates: Sequence[Mapping[str, Any]],
    colours: Mapping[str, int],
    numbered: Mapping[str, int],
    recommended: str | None,
    *,
    fold: bool = False,
) -> Table:
    rows = [_row(each, colours, numbered, recommended) for each in candidates]
    header = [
        "candidate", "", "kept", "95 % interval", "kept on test", "bytes an item", "bytes a user", "p50 µs", "p99 µs",
        "training s", "within limits",
    ]  # fmt: skip
    return Table(caption, header, rows, fold=fold)


def _row(
    each: Mapping[str, Any], colours: Mapping[str, int], numbered: Mapping[str, int], recommended: str | None
) -> Sequence[Cell | str]:
    chosen = each["name"] == recommended
    low, high = each["kept_interval"]
    return [
        Cell(each["name"], "best" if chosen else "", colour=colours[each["method"]]),
        str(numbered.get(each["name"], "")),
        Cell(f"{each['kept']:.1%}", share=min(max(each["kept"], 0.0), 1.0)),
        f"{low:.1%} to {high:.1%}",
        NOTHING if each["kept_on_test"] is None else f"{each['kept_on_test']:.1%}",
        f"{each['bytes_per_item']:,.0f}",
        f"{each['bytes_per_user']:,.0f}",
        f"{each['latency_us']['p50']:,.0f}",
        f"{each['latency_us']['p99']:,.0f}",
        f"{each['training_seconds']:,.0f}" if each["trained"] else NOTHING,
        "yes" if each["fits"] else "no",
    ]


def _draw(found: Mapping[str, Any], colours: Mapping[str, int], numbered: Mapping[str, int]) -> str:
    with page_style():
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        by_bytes, by_time = figure.subplots(1, 2, sharey=True)
        candidates = found["candidates"]
        for axes, places, name in (
            (by_bytes, [each["bytes_per_item"] for each in candidates], "bytes an item"),
            (by_time, [each["latency_us"]["p50"] for each in candidates], "p50 of a query, µs"),
        ):
            _scatter(axes, list(zip(places, candidates, strict=True)), colours, numbered, found["recommended"])
            axes.set(xlabel=name, xscale="log")
            plain_numbers(axes)
        least = found["limits"].get("min_kept")
        if least is not None:
            for axes in (by_bytes, by_time):
                axes.axhline(100 * least, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        by_bytes.set_ylabel("kept of the teacher, %")
        return render(figure, "frontier", "Share of the teacher kept against bytes an item and against query time")


def _scatter(
    axes: Axes,
    placed: Sequence[tuple[float, Mapping[str, Any]]],
    colours: Mapping[str, int],
    numbered: Mapping[str, int],
    recommended: str | None,
) -> None:
    for place, each in placed:
        number, kept = numbered.get(each["name"]), 100 * each["kept"]
        axes.scatter(place, kept, s=60 if number else 18, color=colour(colours[each["method"]]),
                     alpha=1 if number else 0.55, linewidths=0, zorder=3)  # fmt: skip
        if each["name"] == recommended:
            axes.scatter(place, kept, s=170, facecolors="none", edgecolors=INK, linewidths=1.6, zorder=4)
        if number:
            axes.annotate(str(number), (place, kept), color=PAPER, fontsize=6.5, ha="center", va="center", zorder=5)
    axes.set_ylim(bottom=max(0.0, np.floor(min(100 * each["kept"] for _, each in placed)) - 3))
