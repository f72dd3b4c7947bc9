"""The frontier as one picture: what is kept against bytes an item, and against the time of a query.

Labels stand beside points and overlap neither each other nor the points: greedy, deterministic. One that finds no free
place is left out; a solver that moves labels around promises neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.ticker import PercentFormatter
from matplotlib.transforms import Bbox

from distill.report.figures.style import (
    CHOSEN,
    INK,
    LEVEL,
    MUTED,
    PAPER,
    SMALL_FONT,
    WIDTH,
    add_legend,
    colour,
    in_style,
    plain_numbers,
)
from distill.report.material import Frontier, FrontierPoint

REACHES = (9, 16, 26, 38, 52, 70)
"""Distances from the point that are tried, in points of 1/72 inch."""
ANGLES = tuple(math.radians(angle) for angle in (-25, 25, 90, -90, 155, 205, -60, 60, 120, 240, 0, 180))
LEADER_GAP = 4.5
PADDING = 1.5
TEACHER = "teacher"
PRODUCT = "pq"
"""How names of product-quantised precisions begin."""
PRECISIONS = {"float32": "o", "float16": "s", "int8": "^", PRODUCT: "D"}
UNSERVABLE = "X"
BEATEN_OPACITY = 0.4
DEPTH = 0.3
"""How far below the limit on quality the plot goes; what keeps less is drawn at its bottom edge."""
MARGIN = 0.03
DOT_RADIUS, RING_RADIUS = 4.5, 9.0
PANELS: tuple[tuple[Callable[[FrontierPoint], float], str], ...] = (
    (lambda point: point.bytes_per_item, "bytes an item, in the index"),
    (lambda point: point.p50_us / 1000, "p50 of a single query's search, ms"),
)

Spot = tuple[float, float]
Places = Mapping[str, Spot]
"""Name of a point → its data coordinates in a panel."""


@in_style()
def draw_frontier(
    frontier: Frontier, colours: Mapping[str, int] | None = None, labels: Mapping[str, str] | None = None
) -> Figure:
    """Draw both panels.

    Args:
        frontier: What was measured.
        colours: Method → number of its colour; by order of appearance where None.
        labels: Name of a point → what to write beside it, and no name is written into the figure. Where None, the
            recommended point and those on the line are named, and methods are named in the legend.
    """
    methods = dict.fromkeys(point.method for point in frontier.points if point.method != TEACHER)
    colours = colours or {TEACHER: 0, **{method: number for number, method in enumerate(methods, start=1)}}
    named = labels is None
    figure = Figure(figsize=(WIDTH, 6 if named else 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    if named:
        figure.suptitle(
            f"{frontier.data_name}: what {len(frontier.points)} candidates keep of the teacher "
            f"(d = {frontier.teacher_dim})"
        )
    panels[0].set_ylim(*_range(frontier))
    drawn = []
    for axes, (measure, title) in zip(panels, PANELS, strict=True):
        places = {point.name: (measure(point), max(point.kept, axes.get_ylim()[0])) for point in frontier.points}
        _draw_points(axes, frontier, colours, places)
        drawn.append((axes, places, _draw_line(axes, frontier, places)))
        axes.set_xlabel(title)
    _draw_limits(panels, frontier)
    panels[0].set_ylabel("share kept of the teacher's validation Recall@20")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    add_legend(figure, _legend(frontier, colours if named else {}))
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, places, corners in drawn:
        _name_points(axes, frontier, colours, places, {name: name for name in corners} if labels is None else labels)
    return figure


def _range(frontier: Frontier) -> tuple[float, float]:
    """The heights shown: all points but those far below the limit, and the limit where it is not far below them."""
    heights, least = [point.kept for point in frontier.points], frontier.limits.get("min_kept") or 0.0
    lowest = max(min(heights), least - DEPTH)
    return (min(lowest, least) if least > lowest - DEPTH else lowest) - MARGIN, max(heights) + MARGIN


def _kind(point: FrontierPoint) -> str:
    """The precision, whatever the size of a code."""
    return PRODUCT if point.precision.startswith(PRODUCT) else point.precision


def _draw_points(axes: Axes, frontier: Frontier, colours: Mapping[str, int], places: Places) -> None:
    lowest, highest = min(x for x, _ in places.values()), max(x for x, _ in places.values())
    room = max((highest / lowest) ** 0.06, 1.3)
    axes.set(xscale="log", xlim=(lowest / room, highest * room))
    for point in frontier.points:
        shade = colour(colours[point.method])
        axes.plot(
            *places[point.name],
            linestyle="",
            marker=PRECISIONS.get(_kind(point), "o") if point.servable else UNSERVABLE,
            markersize=8 if point.unbeaten else 6,
            markerfacecolor=PAPER if point.is_graph else shade,
            markeredgecolor=shade if point.is_graph else PAPER,
            markeredgewidth=1.5 if point.is_graph else 0.6,
            alpha=1.0 if point.unbeaten else BEATEN_OPACITY,
            clip_on=False,
            zorder=4 if point.unbeaten else 3,
        )
    plain_numbers(axes)


def _draw_line(axes: Axes, frontier: Frontier, places: Places) -> list[str]:
    """Draw the best quality that is to be had up to each place, and return the names of its corners."""
    corners: list[FrontierPoint] = []
    strong = [point for point in frontier.points if point.unbeaten and point.servable]
    for point in sorted(strong, key=lambda point: (places[point.name][0], -point.kept)):
        if not corners or point.kept > corners[-1].kept:
            corners.append(point)
    if not corners:
        return []
    spots = [places[point.name] for point in corners]
    xs = [*(x for x, _ in spots), max(x for x, _ in places.values())]
    axes.plot(xs, [*(y for _, y in spots), spots[-1][1]], drawstyle="steps-post", color=MUTED, linewidth=1.2, zorder=2)
    for point in corners:
        axes.vlines(places[point.name][0], *point.kept_interval, color=MUTED, linewidth=0.8, alpha=0.5, zorder=2)
    return [point.name for point in corners]


def _draw_limits(panels: Sequence[Axes], frontier: Frontier) -> None:
    """Shade what is out of bounds, and say why."""
    least, most = frontier.limits.get("min_kept"), frontier.limits.get("max_bytes_per_item")
    words: dict[str, Any] = {"fontsize": SMALL_FONT, "color": MUTED}
    shade: dict[str, Any] = {"color": MUTED, "alpha": 0.1, "linewidth": 0, "zorder": 0}
    for axes in panels:
        lowest, across = axes.get_ylim()[0], axes.get_yaxis_transform()
        axes.axhline(1.0, color=INK, linewidth=1, linestyle=LEVEL, zorder=1)
        if least is not None and least > lowest:
            axes.axhspan(0, least, **shade)
            axes.text(0.995, least - 0.004, f"below {least:.0%}", va="top", ha="right", transform=across, **words)
        if any(point.kept < lowest for point in frontier.points):
            text = "at the edge: keeps less"
            axes.text(0.995, lowest + 0.004, text, va="bottom", ha="right", transform=across, **words)
    left, right = panels[0].get_xlim()
    if most is not None and left < most < right:
        panels[0].axvspan(most, right, **shade)
        panels[0].set_xlim(left, right)
        panels[0].text(most, 1.0, f" over {most:g}", va="top", transform=panels[0].get_xaxis_transform(), **words)


def _legend(frontier: Frontier, colours: Mapping[str, int]) -> list[Line2D]:
    """What colours, where they are to be named, shapes and lines mean."""
    points = frontier.points
    methods = dict.fromkeys(point.method for point in points if point.method in colours)
    handles = [Line2D([], [], color=colour(colours[name]), marker="o", linestyle="", label=name) for name in methods]
    plain: dict[str, Any] = {"color": MUTED, "linestyle": ""}
    used = {_kind(point) for point in points if point.servable}
    handles += [Line2D([], [], marker=PRECISIONS[name], label=name, **plain) for name in PRECISIONS if name in used]
    if not all(point.servable for point in points):
        handles.append(Line2D([], [], marker=UNSERVABLE, label="no bundle can hold it", **plain))
    if any(point.is_graph for point in points):
        handles.append(Line2D([], [], marker="o", markerfacecolor=PAPER, label="graph (HNSW)", **plain))
    handles += [
        Line2D([], [], marker="o", alpha=BEATEN_OPACITY, label="beaten by another", **plain),
        Line2D([], [], color=MUTED, linewidth=1.2, label="best servable up to here"),
        Line2D([], [], color=INK, linewidth=1, linestyle=LEVEL, label="the teacher's quality"),
    ]
    if frontier.recommended is not None:
        handles.append(Line2D([], [], label="recommended", **_ring(0.6)))
    return handles


def _ring(scale: float = 1.0) -> dict[str, Any]:
    return {
        "linestyle": "",
        "marker": "o",
        "markersize": 2 * RING_RADIUS * scale,
        "markerfacecolor": "none",
        "markeredgecolor": CHOSEN,
        "markeredgewidth": 2,
    }


def _name_points(
    axes: Axes, frontier: Frontier, colours: Mapping[str, int], places: Places, texts: Mapping[str, str]
) -> None:
    """Ring the recommended point, and write the texts beside their points, the recommended one's first."""
    chosen = frontier.recommended
    shades = {point.name: colour(colours[point.method]) for point in frontier.points}
    labels = [(text, places[name], shades[name]) for name, text in texts.items() if name != chosen]
    radii = {places[point.name]: DOT_RADIUS for point in frontier.points if point.unbeaten}
    lesser = [spot for spot in places.values() if spot not in radii]
    if chosen is not None:
        axes.plot(*places[chosen], zorder=5, clip_on=False, **_ring())
        labels.insert(0, (f"★ {texts.get(chosen, chosen)}".rstrip(), places[chosen], CHOSEN))
        radii[places[chosen]] = RING_RADIUS
    place_labels(axes, labels, radii, lesser)


def place_labels(
    axes: Axes,
    labels: Sequence[tuple[str, Spot, str]],
    points: Mapping[Spot, float],
    lesser: Sequence[Spot] = (),
) -> list[Annotation]:
    """Write labels into a finished plot; limits and layout must not change afterwards.

    Args:
        axes: Drawn once, so that its place in the figure is known.
        labels: Text, point in data coordinates, and colour, the most important first.
        points: What must not be covered: data coordinates → radius in points of 1/72 inch.
        lesser: Points that a label covers only where it finds no other place.

    Returns:
        The labels that found a place.
    """
    figure = axes.get_figure()
    if figure is None:
        return []
    scale, room = figure.dpi / 72, axes.get_window_extent()

    def surround(point: Spot, radius: float) -> Bbox:
        x, y = axes.transData.transform(point)
        return Bbox.from_bounds(x, y, 0, 0).padded(radius * scale)

    taken = [surround(point, radius) for point, radius in points.items()]
    avoided = [surround(point, DOT_RADIUS) for point in lesser]
    placed = []
    for text, point, shade in labels:
        label = axes.annotate(text, point, (0, 0), color=shade, **_label_style(shade))
        label.set_in_layout(False)
        anchor = tuple(axes.transData.transform(point))
        box = _find_place(label, anchor, scale, room, [*taken, *avoided])
        box = box or _find_place(label, anchor, scale, room, taken)
        if box is None:
            label.remove()
            continue
        taken.append(box)
        placed.append(label)
    return placed


def _label_style(shade: str) -> dict[str, Any]:
    """Small print on a piece of paper, so that lines pass behind it, tied to its point."""
    return {
        "textcoords": "offset points",
        "fontsize": SMALL_FONT,
        "ha": "center",
        "va": "center",
        "zorder": 6,
        "bbox": {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.8},
        "arrowprops": {"arrowstyle": "-", "linewidth": 0.5, "color": shade, "shrinkA": 0, "shrinkB": LEADER_GAP},
    }


def _find_place(label: Annotation, anchor: Spot, scale: float, room: Bbox, taken: Sequence[Bbox]) -> Bbox | None:
    """Move the label to the first free place; None where there is none."""
    size = Text.get_window_extent(label)  # of the text alone: the annotation's own has the line to the point in it
    half_width, half_height = size.width / 2, size.height / 2
    for reach in REACHES:
        for angle in ANGLES:
            # From the point to the nearest edge of the label, not to its middle.
            x = math.cos(angle) * (reach * scale + half_width)
            y = math.sin(angle) * (reach * scale + half_height)
            left, bottom = anchor[0] + x - half_width, anchor[1] + y - half_height
            box = Bbox.from_bounds(left, bottom, size.width, size.height).padded(PADDING * scale)
            inside = room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 and box.y1 <= room.y1
            if inside and not any(box.overlaps(other) for other in taken):
                label.set_position((x / scale, y / scale))
                if label.arrow_patch is not None:
                    label.arrow_patch.set_visible(reach > REACHES[0])  # beside its point it would look like a minus
                return box
    return None
