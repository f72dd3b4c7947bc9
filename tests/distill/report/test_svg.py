from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
from matplotlib.figure import Figure

from distill.report.svg import NUM_COLOURS, colour, dash, page_style, plain_numbers, render


def draw(name: str) -> str:
    with page_style():
        figure = Figure(figsize=(4, 3), layout="constrained")
        axes = figure.subplots()
        for number in range(NUM_COLOURS + 2):
            axes.plot([1, 10, 80], np.array([1, 2, 3]) * (number + 1), color=colour(number), linestyle=dash(number))
        axes.set_xscale("log")
        axes.set_xlabel("time, s")
        plain_numbers(axes)
        return render(figure, name, "what it shows")


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
