from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from distill.report.frontier_figure import draw_frontier, encode_png, place_labels
from export.frontier.choice import Limits
from tests.export.frontier.test_report import document_of
from tests.export.frontier.toy import build_baseline, build_row, build_teacher


def crowd() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    rows = [build_teacher()]
    for number in range(30):
        power = int(rng.integers(3, 8))
        kept = 0.7 + 0.04 * power + float(rng.normal(0, 0.01))
        rows.append(build_row(f"method-{number}-int8", kept, 2**power, 20.0 * power, method=f"m{number % 6}"))
    return document_of([*rows, build_baseline("popularity", 0.1, 4)])


def labels_of(figure: Figure) -> list[list[Annotation]]:
    return [[text for text in axes.texts if isinstance(text, Annotation)] for axes in figure.axes]


def test_labels_overlap_neither_each_other_nor_the_points() -> None:
    figure = draw_frontier(crowd())
    figure.draw_without_rendering()
    for axes, labels in zip(figure.axes, labels_of(figure), strict=True):
        assert len(labels) >= 3
        boxes = [Text.get_window_extent(label) for label in labels]
        assert not any(one.overlaps(two) for one, two in combinations(boxes, 2))
        assert all(axes.bbox.contains(*corner) for box in boxes for corner in box.corners())


def test_what_finds_no_place_is_left_out() -> None:
    figure = Figure(figsize=(2, 2))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.draw_without_rendering()
    same = [(f"label {number}", (0.5, 0.5), "black") for number in range(60)]
    placed = place_labels(axes, same, {(0.5, 0.5): 5.0})
    assert 3 < len(placed) < 60
    assert placed[0].get_text() == "label 0", "the most important first"
    assert len(axes.texts) == len(placed)


def test_the_recommended_one_is_ringed_and_named_in_both_panels() -> None:
    document = document_of([build_teacher(), build_row("small", 1.0, 32)])
    figure = draw_frontier(document)
    for labels in labels_of(figure):
        assert labels[0].get_text() == "★ small"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"teacher", "freqd", "float32", "recommended", "best servable up to here"} <= set(legend)
    assert not {"int8", "pq", "graph (HNSW)", "no bundle can hold it"} & set(legend)


def test_the_line_is_the_best_that_can_be_served_for_the_bytes() -> None:
    rows = [
        build_teacher(), build_row("a", 0.9, 8), build_row("b", 0.97, 16), build_row("c", 0.96, 32, 10.0),
        build_baseline("ease", 1.2, 4),
    ]  # fmt: skip
    axes = draw_frontier(document_of(rows)).axes[0]
    (line,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert np.asarray(line.get_xdata()).tolist() == [8, 16, 256, 256]
    assert np.asarray(line.get_ydata()).tolist() == [0.9, 0.97, 1.0, 1.0]


def test_what_keeps_little_stands_at_the_edge_and_squeezes_nothing() -> None:
    rows = [build_teacher(), build_row("a", 0.97, 8), build_row("poor", 0.05, 4)]
    axes = draw_frontier(document_of(rows)).axes[0]
    lowest = axes.get_ylim()[0]
    assert lowest == pytest.approx(0.62)
    heights = [float(np.asarray(line.get_ydata())[0]) for line in axes.lines if line.get_linestyle() == "None"]
    assert min(heights) == lowest


def test_limits_are_shaded_and_said() -> None:
    document = document_of([build_teacher(), build_row("a", 0.97, 8)], Limits(max_bytes_per_item=100, min_kept=0.9))
    left, right = draw_frontier(document).axes
    assert right.texts[0].get_text() == "below 90%"
    assert len(left.patches) == len(right.patches) + 1
    assert encode_png(draw_frontier(document)).startswith(b"\x89PNG")
