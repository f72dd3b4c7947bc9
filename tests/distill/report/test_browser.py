"""The page in a real browser: it shows what it should, asks for nothing, complains of nothing."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pytest

import lowpass
from tests.distill.report.conftest import Gallery
from tests.distill.report.invented import invent_frontier
from tests.distill.report.test_page import HOSTILE
from tests.kits.chromium import Theme, needs_chromium, photograph, visit

pytestmark = needs_chromium

PAPER = {"light": 0xFFFFFF, "dark": 0x14171C}
"""`--paper` in distill/report/style.css."""


@pytest.fixture(scope="module")
def page(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    frontier = invent_frontier(folder / "frontier.json", gallery.data, name=HOSTILE)
    words = ["report", *map(str, gallery.students), "--out", str(folder / "report.html"), "--title", HOSTILE]
    assert lowpass.main([*words, "--data", str(gallery.folder / "data"), "--frontier", str(frontier)]) == 0
    return folder / "report.html"


def test_the_page_is_shown_asks_for_nothing_and_complains_of_nothing(page: Path) -> None:
    seen = visit(page)
    assert seen.requests == []
    assert seen.console == []
    for heading in ("Quality", "Are the differences more than chance?", "Learning", "Frequencies", "Popularity"):
        assert f"<h2>{heading}</h2>" in seen.document
    assert seen.document.count("<svg") == 4
    assert f"<h1>{html.escape(HOSTILE, quote=False)}</h1>" in seen.document
    assert "<script" not in seen.document
    assert "<img" not in seen.document


def test_a_page_that_does_ask_and_complain_is_found_out(tmp_path: Path) -> None:
    """Without this the test above could pass because nobody listened."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><title>bad</title><style>@import 'http://127.0.0.1:9/a.css'</style>"
        "<img src='http://127.0.0.1:9/b.png'><script>console.error('wrong')</script>"
    )
    seen = visit(bad)
    assert sorted(seen.requests) == ["http://127.0.0.1:9/a.css", "http://127.0.0.1:9/b.png"]
    assert "wrong" in seen.console


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_follows_the_theme_and_stays_readable(page: Path, theme: Theme) -> None:
    pixels = photograph(page, theme).reshape(-1, 3).astype(np.int64)
    found, counts = np.unique(pixels @ [1 << 16, 1 << 8, 1], return_counts=True)
    assert found[counts.argmax()] == PAPER[theme]
    brightness = pixels.sum(axis=1)
    assert brightness.max() - brightness.min() > 500
    assert len(found) > 100
