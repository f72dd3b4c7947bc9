"""Labels beside points that overlap neither each other nor the points: greedy, deterministic.

A label that finds no free place is left out; a solver that moves labels around promises neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.text import Annotation, Text
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
