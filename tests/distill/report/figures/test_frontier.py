from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text

from distill.report.figures import draw_frontier, encode_png, encode_svg
from distill.report.figures.frontier import place_labels
from distill.report.material import Frontier, FrontierPoint
from tests.distill.report.invented import invent_point

TEACHER = invent_point("teacher-float32", 1.0, 256, method="teacher", training_seconds=None)


def baseline(name: str, kept: float, bytes_per_item: int) -> FrontierPoint:
    return invent_point(name, kept, bytes_per_item, method=name, servable=False, training_seconds=None)


def frontier_of(*points: FrontierPoint, recommended: str | None = None, **limits: float) -> Frontier:
    return Frontier("toy", "0", 64, points, recommended, {"min_kept": 0.95, **limits})


def crowd() -> Frontier:
    rng = np.random.default_rng(0)
    points = [TEACHER]
    for number in range(30):
        power = int(rng.integers(3, 8))
        kept = 0.7 + 0.04 * power + float(rng.normal(0, 0.01))
        points.append(invent_point(f"method-{number}-int8", kept, 2**power, 20.0 * power, method=f"m{number % 6}"))
    return frontier_of(*points, baseline("popularity", 0.1, 4), recommended="teacher-float32")


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
    figure = draw_frontier(frontier_of(TEACHER, invent_point("small", 1.0, 32), recommended="small"))
    for labels in labels_of(figure):
        assert labels[0].get_text() == "★ small"
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"teacher", "freqd", "float32", "recommended", "best servable up to here"} <= set(legend)
    assert not {"int8", "pq", "graph (HNSW)", "no bundle can hold it"} & set(legend)


def test_the_line_is_the_best_that_can_be_served_for_the_bytes() -> None:
    points = (
        TEACHER, invent_point("a", 0.9, 8), invent_point("b", 0.97, 16), invent_point("c", 0.96, 32, 10.0),
        baseline("ease", 1.2, 4),
    )  # fmt: skip
    axes = draw_frontier(frontier_of(*points)).axes[0]
    (line,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    assert np.asarray(line.get_xdata()).tolist() == [8, 16, 256, 256]
    assert np.asarray(line.get_ydata()).tolist() == [0.9, 0.97, 1.0, 1.0]


def test_what_keeps_little_stands_at_the_edge_and_squeezes_nothing() -> None:
    poor = invent_point("poor", 0.05, 4)
    axes = draw_frontier(frontier_of(TEACHER, invent_point("a", 0.97, 8), poor)).axes[0]
    lowest = axes.get_ylim()[0]
    assert lowest == pytest.approx(0.62)
    heights = [float(np.asarray(line.get_ydata())[0]) for line in axes.lines if line.get_linestyle() == "None"]
    assert min(heights) == lowest


def test_a_limit_below_the_plot_is_not_written_outside_of_it() -> None:
    figure = draw_frontier(frontier_of(TEACHER, invent_point("a", 0.97, 8), min_kept=0.3))
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert not axes.patches
        boxes = [Text.get_window_extent(text) for text in axes.texts]
        assert all(axes.bbox.contains(*corner) for box in boxes for corner in box.corners())


def test_limits_are_shaded_and_said() -> None:
    frontier = frontier_of(TEACHER, invent_point("a", 0.97, 8), max_bytes_per_item=100, min_kept=0.9)
    left, right = draw_frontier(frontier).axes
    assert right.texts[0].get_text() == "below 90%"
    assert len(left.patches) == len(right.patches) + 1
    assert encode_png(draw_frontier(frontier)).startswith(b"\x89PNG")


def test_on_the_page_numbers_stand_for_names() -> None:
    frontier = crowd()
    figure = draw_frontier(frontier, labels={"teacher-float32": "1", "method-3-int8": "2"})
    for labels in labels_of(figure):
        assert {label.get_text() for label in labels} == {"★ 1", "2"}
    svg = encode_svg(figure, "frontier", "what it shows")
    assert not any(point.name in svg or f">{point.method}<" in svg for point in frontier.points)
