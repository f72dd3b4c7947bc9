from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from distill.report.figures import draw_sweep, encode_png

ALPHA = {"name": "alpha", "low": 0.0, "high": 1.0, "log": False, "integer": False}
BETA = {"name": "distillation_weight", "low": 0.01, "high": 10.0, "log": True, "integer": False}
DIM = {"name": "dim", "values": ["8", "16"]}
ORDER = {"name": "order", "values": ["filter-first", "projector-first"]}


def build_summary(space: list[dict[str, Any]], trials: list[tuple[float | None, dict[str, Any]]]) -> dict[str, Any]:
    described = [{"number": row, "value": value, "settings": used} for row, (value, used) in enumerate(trials)]
    return {"method": "freqd", "data": "toy", "space": space, "trials": described}


def lines(panel: Axes) -> dict[str, list[tuple[float, float]]]:
    return {
        str(line.get_label()): [(float(x), float(y)) for x, y in np.asarray(line.get_xydata())] for line in panel.lines
    }


def test_one_setting_alone_is_joined_from_value_to_value() -> None:
    trials: list[tuple[float | None, dict[str, Any]]] = [
        (0.3, {"alpha": 1.0}), (0.1, {"alpha": 0.0}), (0.2, {"alpha": 0.5}), (None, {"alpha": 0.7}),
    ]  # fmt: skip
    figure = draw_sweep(build_summary([ALPHA], trials), [("fd, d 20", 0.25)])
    (panel,) = figure.axes
    assert lines(panel)["best trials"] == [(0.0, 0.1), (0.5, 0.2), (1.0, 0.3)]
    assert lines(panel)["fd, d 20"] == [(0.0, 0.25), (1.0, 0.25)]
    assert panel.get_xlabel() == "α of the filter"
    assert panel.get_ylabel() == "validation Recall@20"
    assert "3 trials" in str(figure.get_suptitle())
    assert encode_png(figure).startswith(b"\x89PNG")


def test_the_line_joins_the_best_where_other_settings_vary_too() -> None:
    rng = np.random.default_rng(0)
    drawn = [(float(alpha), float(beta)) for alpha, beta in rng.random((9, 2))]
    trials: list[tuple[float | None, dict[str, Any]]] = [
        (alpha + beta, {"alpha": alpha, "distillation_weight": beta}) for alpha, beta in drawn
    ]
    by_alpha, by_beta = draw_sweep(build_summary([ALPHA, BETA], trials), []).axes
    joined = lines(by_alpha)["best trials"]
    order = sorted(drawn)
    thirds = [max(order[start : start + 3], key=sum) for start in (0, 3, 6)]
    np.testing.assert_allclose(joined, [(alpha, alpha + beta) for alpha, beta in thirds])
    assert (by_alpha.get_xscale(), by_beta.get_xscale()) == ("linear", "log")


def test_words_stand_side_by_side_and_dimensions_are_kept_apart() -> None:
    trials: list[tuple[float | None, dict[str, Any]]] = [
        (quality, {"order": order, "dim": dim})
        for quality, order, dim in (
            (0.1, "filter-first", "8"), (0.4, "filter-first", "16"),
            (0.3, "projector-first", "16"), (0.2, "projector-first", "16"),
        )
    ]  # fmt: skip
    figure = draw_sweep(build_summary([ORDER, DIM], trials), [])
    words, dims = figure.axes
    assert [tick.get_text() for tick in words.get_xticklabels()] == ["filter-first", "projector-first"]
    assert lines(words) == {"best trials, d 8": [(0, 0.1)], "best trials, d 16": [(0, 0.4), (1, 0.3)]}
    assert {line.get_linestyle() for line in words.lines} == {"None"}
    assert lines(dims) == {"best trials": [(8, 0.1), (16, 0.4)]}
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["best trials, d 8", "best trials, d 16", "best trials"]


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (3, 3), (4, 4), (5, 5)])
def test_every_setting_gets_a_panel(count: int, shown: int) -> None:
    space = [{**ALPHA, "name": f"setting_{number}"} for number in range(count)]
    used = {str(axis["name"]): 0.5 for axis in space}
    figure = draw_sweep(build_summary(space, [(0.1, used), (0.2, used)]), [])
    assert [panel.get_visible() for panel in figure.axes].count(True) == shown
