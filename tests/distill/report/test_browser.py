"""The page in a real browser: it shows what it should, asks for nothing, complains of nothing."""

from __future__ import annotations

import html
from pathlib import Path

import numpy as np
import pytest

from distill.report.figures.style import THEMES
from distill.report.material import gather
from distill.report.page import render_page
from distill.report.sections import build_sections
from tests.distill.report.invented import Gallery, invent_frontier
from tests.distill.report.test_page import HOSTILE
from tests.kits.chromium import Theme, needs_chromium, photograph, visit

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def page(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    material = gather(gallery.students, gallery.folder / "data", frontier=invent_frontier(gallery.data, name=HOSTILE))
    target = tmp_path_factory.mktemp("page") / "report.html"
    target.write_text(render_page(material, build_sections(material), HOSTILE), encoding="utf-8")
    return target


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
    assert found[counts.argmax()] == int(THEMES[theme]["paper"].removeprefix("#"), 16)
    brightness = pixels.sum(axis=1)
    assert brightness.max() - brightness.min() > 500
    assert len(found) > 100
