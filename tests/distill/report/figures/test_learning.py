from __future__ import annotations

from pathlib import Path

import numpy as np

from distill.report.figures import draw_learning, plot_curves
from distill.report.figures.style import colour
from distill.report.material import read_histories
from tests.distill.evaluation.test_comparison import save_run
from tests.distill.report.invented import Gallery


def read_png_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[12:16] == b"IHDR"
    assert content[-8:-4] == b"IEND"
    return int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")


def test_the_plot_is_a_png_of_sane_size(tmp_path: Path) -> None:
    trained, imported = save_run(tmp_path / "a", history=True), save_run(tmp_path / "b", history=False)
    target = tmp_path / "plots" / "curves.png"
    plot_curves([trained, imported], target)
    assert read_png_size(target) == (1320, 504)
    assert 10_000 < target.stat().st_size < 1_000_000
    assert [path.name for path in target.parent.iterdir()] == ["curves.png"]
    plot_curves([trained], tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes() != target.read_bytes()


def test_runs_without_any_curve_can_still_be_drawn(tmp_path: Path) -> None:
    plot_curves([save_run(tmp_path / "a", history=False)], tmp_path / "level.png")
    plot_curves([save_run(tmp_path / "b", history=False, validation=False)], tmp_path / "bare.png")
    assert read_png_size(tmp_path / "bare.png") == (1320, 504)


def test_seeds_share_a_colour_and_a_name_and_the_page_has_no_names(gallery: Gallery) -> None:
    material = gallery.gather()
    curves, clock = read_histories(material.runs)
    figure = draw_learning(material.groups, curves, clock)
    for axes in figure.axes:
        assert [line.get_color() for line in axes.lines] == [colour(number) for number in (0, 1, 1, 2)]
        np.testing.assert_array_equal(axes.lines[0].get_ydata(), [0.1, 0.3, 0.2])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [group.name for group in material.groups]
    assert draw_learning(material.groups, curves, clock, named=False).legends == []
