"""The frontier as one picture: what is kept against bytes an item, and against the time of a query.

Labels beside points that overlap neither each other nor the points: greedy, deterministic.

A label that finds no free place is left out; a solver that moves labels around promises neither.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation, Text
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, PercentFormatter
from matplotlib.transforms import Bbox

REACHES = (9, 16, 26, 38, 52, 70)
"""Distances from the point that are tried, in points of 1/72 inch."""
ANGLES = tuple(math.radians(angle) for angle in (-25, 25, 90, -90, 155, 205, -60, 60, 120, 240, 0, 180))
LEADER_GAP = 4.5
PADDING = 1.5


def place_labels(
    axes: Axes, labels: Sequence[tuple[str, tuple[float, float], str]], points: Mapping[tuple[float, float], float]
) -> list[Annotation]:
    """Write labels into a finished plot; limits and layout must not change afterwards.

    Args:
        axes: Drawn once, so that its place in the figure is known.
        labels: Text, point in data coordinates, and colour, the most important first.
        points: What must not be covered: data coordinates → radius in points of 1/72 inch.

    Returns:
        The labels that found a place.
    """
    figure = axes.get_figure()
    if figure is None:
        return []
    scale = figure.dpi / 72
    room = axes.get_window_extent()
    taken = []
    for point, radius in points.items():
        x, y = axes.transData.transform(point)
        taken.append(Bbox.from_bounds(x, y, 0, 0).padded(radius * scale))
    placed = []
    for text, point, colour in labels:
        label = axes.annotate(
            text,
            point,
            (0, 0),
            textcoords="offset points",
            fontsize=8,
            color=colour,
            ha="center",
            va="center",
            zorder=6,
            arrowprops={"arrowstyle": "-", "linewidth": 0.5, "color": colour, "shrinkA": 1, "shrinkB": LEADER_GAP},
        )
        label.set_in_layout(False)
        box = _find_place(label, tuple(axes.transData.transform(point)), scale, room, taken)
        if box is None:
            label.remove()
            continue
        taken.append(box)
        placed.append(label)
    return placed


def _find_place(
    label: Annotation, anchor: tuple[float, float], scale: float, room: Bbox, taken: Sequence[Bbox]
) -> Bbox | None:
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
                return box
    return None


PRODUCT = "pq"
"""How names of product-quantised precisions begin."""
MARKERS = {"float32": "o", "float16": "s", "int8": "^", PRODUCT: "D"}
FIXED_COLOURS = {"teacher": "0.15", "svd": "0.55"}
COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9")
"""Matplotlib's own, without the grey."""
CHOSEN_COLOUR = "#c2185b"
BEATEN_OPACITY = 0.4
DEPTH = 0.3
"""How far below the limit on quality the plot goes; what keeps less is drawn at its bottom edge."""
MARGIN = 0.03
DOT_RADIUS, RING_RADIUS = 4.5, 9.0

Row = Mapping[str, Any]
Place = Callable[[Row], float]


def bytes_per_item(row: Row) -> float:
    """The horizontal axis of the left panel."""
    return float(row["bytes_per_item"])


def p50_milliseconds(row: Row) -> float:
    """The horizontal axis of the right panel."""
    return float(row["latency_us"]["p50"]) / 1000


PANELS: tuple[tuple[Place, str], ...] = (
    (bytes_per_item, "bytes an item, in the index"),
    (p50_milliseconds, "p50 of a single query's search, ms"),
)


def draw_frontier(document: Mapping[str, Any]) -> Figure:
    """Draw both panels.

    Args:
        document: What `frontier.json` holds.
    """
    figure = Figure(figsize=(15, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2, sharey=True)
    figure.suptitle(_title(document), fontsize=12)
    rows, colours = document["candidates"], _colours(document["candidates"])
    panels[0].set_ylim(*_range(rows, document["limits"]["min_kept"]))
    corners = []
    for axes, (place, _) in zip(panels, PANELS, strict=True):
        _draw_points(axes, rows, colours, place)
        corners.append(_draw_line(axes, rows, place))
    _draw_limits(panels, document)
    _finish(figure, panels, document)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes, (place, _), named in zip(panels, PANELS, corners, strict=True):
        _name_points(axes, rows, named, colours, place, document["recommended"])
    return figure


def encode_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=figure.dpi)
    return content.getvalue()


def _title(document: Mapping[str, Any]) -> str:
    name, dim = document["data"]["name"], document["teacher"]["dim"]
    return f"{name}: what {len(document['candidates'])} candidates keep of the teacher (d = {dim})"


def _colours(rows: Sequence[Row]) -> dict[str, Any]:
    """One colour a method, the same in every plot of the same methods."""
    methods = [method for method in dict.fromkeys(row["method"] for row in rows) if method not in FIXED_COLOURS]
    return {**FIXED_COLOURS, **{method: COLOURS[number % len(COLOURS)] for number, method in enumerate(methods)}}


def _range(rows: Sequence[Row], min_kept: float) -> tuple[float, float]:
    heights = [float(row["kept"]) for row in rows]
    return max(min(heights), min_kept - DEPTH) - MARGIN, max(heights) + MARGIN


def _height(row: Row, axes: Axes) -> float:
    return max(float(row["kept"]), axes.get_ylim()[0])


def _kind(row: Row) -> str:
    """The precision, whatever the size of a code."""
    return PRODUCT if row["precision"].startswith(PRODUCT) else str(row["precision"])


def _draw_points(axes: Axes, rows: Sequence[Row], colours: Mapping[str, Any], place: Place) -> None:
    axes.set_xscale("log")
    for row in rows:
        is_graph = row["index"]["factory"].startswith("HNSW")
        colour, strong = colours[row["method"]], row["pareto"]
        axes.plot(
            place(row),
            _height(row, axes),
            linestyle="",
            marker=MARKERS[_kind(row)] if row["servable"] else "X",
            markersize=8 if strong else 6,
            markerfacecolor="white" if is_graph else colour,
            markeredgecolor=colour if is_graph else "white",
            markeredgewidth=1.5 if is_graph else 0.6,
            alpha=1.0 if strong else BEATEN_OPACITY,
            clip_on=False,
            zorder=4 if strong else 3,
        )


def _draw_line(axes: Axes, rows: Sequence[Row], place: Place) -> list[Row]:
    """Draw the best quality that is to be had up to each place, and return its corners."""
    corners: list[Row] = []
    strong = [row for row in rows if row["pareto"] and row["servable"]]
    for row in sorted(strong, key=lambda row: (place(row), -row["kept"])):
        if not corners or row["kept"] > corners[-1]["kept"]:
            corners.append(row)
    xs = [*map(place, corners), max(map(place, rows))]
    ys = [_height(row, axes) for row in [*corners, corners[-1]]]
    axes.plot(xs, ys, drawstyle="steps-post", color="0.35", linewidth=1.2, zorder=2)
    for row in corners:
        axes.vlines(place(row), *row["kept_interval"], color="0.35", linewidth=0.8, alpha=0.5, zorder=2)
    return corners


def _draw_limits(panels: Sequence[Axes], document: Mapping[str, Any]) -> None:
    """Shade what is out of bounds, and say why."""
    least, most = document["limits"]["min_kept"], document["limits"]["max_bytes_per_item"]
    words: dict[str, Any] = {"fontsize": 8, "color": "0.45", "ha": "right"}
    shade: dict[str, Any] = {"color": "0.5", "alpha": 0.08, "linewidth": 0, "zorder": 0}
    for axes in panels:
        lowest, across = axes.get_ylim()[0], axes.get_yaxis_transform()
        axes.axhline(1.0, color=FIXED_COLOURS["teacher"], linewidth=1, linestyle="--", zorder=1)
        axes.axhspan(0, least, **shade)
        axes.text(0.995, least - 0.004, f"below {least:.0%}", va="top", transform=across, **words)
        if any(row["kept"] < lowest for row in document["candidates"]):
            axes.text(0.995, lowest + 0.004, "at the edge: keeps less", va="bottom", transform=across, **words)
    left, right = panels[0].get_xlim()
    if most is not None and left < most < right:
        panels[0].axvspan(most, right, **shade)
        panels[0].set_xlim(left, right)
        panels[0].text(
            most, 1.0, f" over {most:g}", va="top", transform=panels[0].get_xaxis_transform(), **{**words, "ha": "left"}
        )


def _finish(figure: Figure, panels: Sequence[Axes], document: Mapping[str, Any]) -> None:
    panels[0].set_ylabel("share kept of the teacher's validation Recall@20")
    panels[0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes, (_, label) in zip(panels, PANELS, strict=True):
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        handles=_legend(document), loc="outside lower center", ncols=8, fontsize=8.5, frameon=False, handletextpad=0.5
    )


def _legend(document: Mapping[str, Any]) -> list[Line2D]:
    rows = document["candidates"]
    colours = _colours(rows)
    methods = dict.fromkeys(row["method"] for row in rows)
    handles = [Line2D([], [], color=colours[method], marker="o", linestyle="", label=method) for method in methods]
    grey: dict[str, Any] = {"color": "0.4", "linestyle": ""}
    used = {_kind(row) for row in rows if row["servable"]}
    handles += [Line2D([], [], marker=marker, label=name, **grey) for name, marker in MARKERS.items() if name in used]
    if not all(row["servable"] for row in rows):
        handles.append(Line2D([], [], marker="X", label="no bundle can hold it", **grey))
    if any(row["index"]["factory"].startswith("HNSW") for row in rows):
        handles.append(Line2D([], [], marker="o", markerfacecolor="white", label="graph (HNSW)", **grey))
    handles += [
        Line2D([], [], marker="o", alpha=BEATEN_OPACITY, label="beaten by another", **grey),
        Line2D([], [], color="0.35", linewidth=1.2, label="best servable up to here"),
        Line2D([], [], color=FIXED_COLOURS["teacher"], linewidth=1, linestyle="--", label="teacher"),
    ]
    if document["recommended"] is not None:
        handles.append(Line2D([], [], label="recommended", **_ring()))
    return handles


def _ring() -> dict[str, Any]:
    return {
        "linestyle": "",
        "marker": "o",
        "markersize": 2 * RING_RADIUS,
        "markerfacecolor": "none",
        "markeredgecolor": CHOSEN_COLOUR,
        "markeredgewidth": 2,
    }


def _name_points(
    axes: Axes,
    rows: Sequence[Row],
    corners: Sequence[Row],
    colours: Mapping[str, Any],
    place: Place,
    chosen: str | None,
) -> None:
    labels = [(row["name"], (place(row), _height(row, axes)), colours[row["method"]]) for row in corners]
    for row in rows:
        if row["name"] == chosen:
            point = (place(row), _height(row, axes))
            axes.plot(*point, zorder=5, clip_on=False, **_ring())
            labels = [(f"★ {chosen}", point, CHOSEN_COLOUR), *(label for label in labels if label[0] != chosen)]
    strong = [row for row in rows if row["pareto"] or row["name"] == chosen]
    radii = {(place(row), _height(row, axes)): RING_RADIUS if row["name"] == chosen else DOT_RADIUS for row in strong}
    place_labels(axes, labels, radii)
