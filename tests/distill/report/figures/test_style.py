from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import distill.report
from distill.report.figures.style import (
    DPI,
    NUM_COLOURS,
    THEMES,
    add_legend,
    colour,
    dash,
    encode_png,
    encode_svg,
    in_style,
    line_style,
    plain_numbers,
)


@in_style()
def draw_figure() -> Figure:
    figure = Figure(figsize=(4, 3), layout="constrained")
    axes = figure.subplots()
    for number in range(NUM_COLOURS + 2):
        axes.plot([1, 10, 80], np.array([1, 2, 3]) * (number + 1), **line_style(number))
    axes.set_xscale("log")
    axes.set_xlabel("time, s")
    plain_numbers(axes)
    return figure


def draw(name: str) -> str:
    return encode_svg(draw_figure(), name, "what it shows")


def test_a_figure_is_an_element_in_the_pages_own_colours() -> None:
    svg = draw("curves")
    assert svg.startswith('<svg role="img" aria-label="what it shows" viewBox="0 0 288 216"')
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg" or root.tag.endswith("}svg")
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", svg))
    assert used == {"ink", "muted", "line", *(f"series-{number}" for number in range(1, NUM_COLOURS + 1))}
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert not re.search(r"<style|<script|font-family|<metadata|<!", svg)


def test_numbers_and_words_stay_text() -> None:
    svg = draw("curves")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert "time, s" in texts
    assert {"1", "2", "5", "10", "20", "50"} <= set(texts)


def test_two_figures_share_no_id_and_refer_to_their_own() -> None:
    first, second = draw("first"), draw("second")
    ids = [set(re.findall(r'\bid="([^"]*)"', svg)) for svg in (first, second)]
    assert not ids[0] & ids[1]
    referred = set(re.findall(r'url\(#([^)]*)\)|href="#([^"]*)"', first))
    assert referred
    assert {left or right for left, right in referred} <= ids[0]


def test_a_figure_is_the_same_every_time() -> None:
    assert draw("curves") == draw("curves")


def test_more_series_than_colours_differ_by_their_dash() -> None:
    assert colour(1) == colour(1 + NUM_COLOURS)
    assert dash(1) != dash(1 + NUM_COLOURS)
    assert len({colour(number) for number in range(NUM_COLOURS + 1)}) == NUM_COLOURS + 1


def test_both_themes_colour_the_same_things_and_no_two_things_alike() -> None:
    light, dark = THEMES["light"], THEMES["dark"]
    assert list(light) == list(dark)
    assert len(set(light.values())) == len(light), "the encoder tells variables by their colour"


def test_the_style_sheet_uses_no_colour_that_is_not_declared() -> None:
    sheet = (Path(distill.report.__file__).parent / "style.css").read_text(encoding="utf-8")
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", sheet))
    assert {"paper", "ink"} <= used
    assert used - set(THEMES["light"]) == {"series", "share"}, "which the template sets on the element itself"
    assert not re.search(r"#[0-9a-f]{3,6}\b", sheet)


def test_a_png_has_the_colours_themselves(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(draw_figure()))
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (4 * DPI, 3 * DPI)
        pixels = {"#" + bytes(pixel).hex() for pixel in np.asarray(image.convert("RGB")).reshape(-1, 3)}
    light = THEMES["light"]
    assert {light["paper"], light["ink"], light["series-1"]} <= pixels


@pytest.mark.parametrize("length", [5, 40, 150])
def test_a_legend_stays_inside_the_figure(length: int) -> None:
    with in_style():
        figure = Figure(figsize=(9, 5), layout="constrained")
        axes = figure.subplots()
        for number in range(6):
            axes.plot([0, 1], [0, number], label=f"{number}".ljust(length, "n"))
            axes.plot([0, 1], [0, -number], label=f"{number}".ljust(length, "n"))
        add_legend(figure)
        figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 6, "a name once"
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert (len(legend.get_texts()[0].get_text()) == length) is (length < 150), "what has no room loses its middle"
