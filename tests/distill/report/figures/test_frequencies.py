from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from distill.graph.analysis import Analysis, Grouping, Groups, StudentAnalysis, View
from distill.graph.spectrum import equal_count_groups, equal_width_groups, exact_spectrum
from distill.report.figures import draw_figures, draw_frequencies, encode_png
from distill.report.figures.frequencies import LOWEST_KEPT
from distill.report.figures.style import MARKERS, colour
from tests.distill.toy import build_random_graph

FIGURES = ["loss", "spectrum", "kept"]
BY_RECALL: list[float | None] = [0.1, 0.2, 0.3]


def build_analysis(grouping: Grouping, qualities: list[float | None], worst: float = 1.5) -> Analysis:
    spectrum = exact_spectrum(build_random_graph(np.random.default_rng(0)))
    groups = equal_width_groups(spectrum, 9) if grouping == "equal-width" else equal_count_groups(spectrum, 9)
    rng = np.random.default_rng(1)
    teacher = groups.energies(rng.normal(size=(55, 6)))
    students = [
        StudentAnalysis(f"run-{number}", 4, quality, teacher / 2, teacher * rng.uniform(0.1, worst, size=9))
        for number, quality in enumerate(qualities)
    ]
    known = Groups(groups.bounds, groups.counts, groups.leakage, "exact")
    return Analysis(known, "teacher", teacher, tuple(students), View(grouping=grouping), "toy")


def draw(qualities: list[float | None], grouping: Grouping = "equal-width") -> dict[str, Figure]:
    return draw_figures(build_analysis(grouping, qualities))


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


@pytest.mark.parametrize("grouping", ["equal-width", "equal-count"])
def test_three_figures_say_what_they_show(grouping: Grouping) -> None:
    drawn = draw(BY_RECALL, grouping)
    assert list(drawn) == FIGURES
    for figure in drawn.values():
        axes = figure.axes[0]
        assert axes.get_title().endswith(": toy, bipartite graph")
        assert "λ" in axes.get_xlabel()
        assert axes.get_ylabel()
        assert legend(figure)[:3] == ["run-0", "run-1", "run-2"]
        assert encode_png(figure).startswith(b"\x89PNG")
    assert legend(drawn["spectrum"])[3:] == ["teacher", "frequencies (the spectrum of noise)"]


def test_the_page_shows_the_same_lines_in_its_own_colours_and_names_nothing() -> None:
    analysis = build_analysis("equal-width", BY_RECALL)
    apart, together = draw_figures(analysis), draw_frequencies(analysis, [3, 1, 2])
    assert together.legends == []
    for axes, name in zip(together.axes, ("kept", "spectrum"), strict=True):
        for line, other, number in zip(axes.lines[:3], apart[name].axes[0].lines[:3], (3, 1, 2), strict=True):
            np.testing.assert_array_equal(line.get_xydata(), other.get_xydata())
            assert line.get_color() == colour(number)


def test_lines_are_the_numbers_with_gaps_where_the_teacher_has_nothing() -> None:
    analysis = build_analysis("equal-width", BY_RECALL)
    analysis.teacher_energies[2] = 0.0
    axes = draw_figures(analysis)["loss"].axes[0]
    for line, student in zip(axes.lines, analysis.students, strict=True):
        places, values = np.asarray(line.get_xdata(), np.float64), np.asarray(line.get_ydata(), np.float64)
        np.testing.assert_allclose(places, (np.arange(9) + 0.5) * 2 / 9)
        np.testing.assert_array_equal(values, np.where(np.arange(9) == 2, np.nan, student.losses))


@pytest.mark.parametrize("name", FIGURES)
def test_runs_are_coloured_by_recall_where_all_have_it_and_it_differs(name: str) -> None:
    plot, bar = draw(BY_RECALL)[name].axes
    assert bar.get_ylabel() == "test Recall@20"
    green = [to_rgb(line.get_color())[1] for line in plot.lines[:3]]
    assert green[0] < green[1] < green[2]
    plain: list[list[float | None]] = [[0.1, None, 0.3], [0.2, 0.2, 0.2], [0.2]]
    for qualities in plain:
        figure = draw(qualities)[name]
        assert len(figure.axes) == 1
        assert figure.axes[0].lines[0].get_color() == colour(1)


def test_many_runs_go_without_names() -> None:
    qualities: list[float | None] = [0.1 + 0.01 * number for number in range(len(MARKERS) + 1)]
    assert len(legend(draw(qualities[:-1])["loss"])) == len(MARKERS)
    assert legend(draw(qualities)["loss"]) == []


def test_one_hopeless_group_does_not_flatten_the_others() -> None:
    figure = draw_figures(build_analysis("equal-width", BY_RECALL, worst=90))["kept"]
    assert figure.axes[0].get_ylim()[0] == LOWEST_KEPT
