from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import distill.report
from distill.report.material import Material, gather
from distill.report.page import render_page
from distill.report.sections import LeftOut, build_sections
from tests.distill.report.invented import Gallery, invent_analysis, invent_frontier, invent_run

HOSTILE = "<script>alert(1)</script><img src=//evil.example/x onerror=alert(2)>"
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(HTMLParser):
    """Collects elements and visible text, and checks that what is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.opened.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.opened or self.opened[-1] != "style":
            self.text.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.opened == []
    return reader


def render(material: Material, title: str = "A report") -> str:
    return render_page(material, build_sections(material), title)


def test_the_page_has_every_section_there_is_material_for(gallery: Gallery) -> None:
    frontier = invent_frontier(gallery.data)
    page = render(gather(gallery.students, gallery.folder / "data", frontier=frontier))
    reader = read(page)
    sections = [attributes["id"] for tag, attributes in reader.seen if tag == "section"]
    assert sections == [
        "comparison", "significance", "learning", "frequencies", "popularity", "frontier", "settings",
    ]  # fmt: skip
    links = [attributes["href"] for tag, attributes in reader.seen if tag == "a"]
    assert links == [f"#{name}" for name in sections]
    assert [tag for tag, _ in reader.seen].count("svg") == 4
    ids = [attributes["id"] for _, attributes in reader.seen if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_what_is_left_out_is_named_with_what_brings_it(gallery: Gallery) -> None:
    material = gather(gallery.students)
    missing = [section for section in build_sections(material) if isinstance(section, LeftOut)]
    assert [section.title for section in missing] == [
        "Are the differences more than chance?", "Frequencies", "The frontier",
    ]  # fmt: skip
    text = " ".join(" ".join(read(render(material)).text).split())
    assert "Not on this page" in text
    for section in missing:
        assert section.remedy in text
    for option in ("--data", "--analysis", "--frontier"):
        assert option in text


def test_the_page_needs_nothing_from_outside(gallery: Gallery) -> None:
    page = render(gallery.gather())
    reader = read(page)
    assert not {tag for tag, _ in reader.seen} & {"script", "link", "img", "iframe", "object", "image", "base", "form"}
    for tag, attributes in reader.seen:
        for name in ("src", "href", "xlink:href"):
            assert str(attributes.get(name, "#")).startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    policy = [attributes for tag, attributes in reader.seen if attributes.get("http-equiv")]
    assert policy[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'"


def test_hostile_names_are_text_and_nothing_else(gallery: Gallery, tmp_path: Path) -> None:
    """Whoever names a run, a data set or a title must not write the page."""
    folder = tmp_path / HOSTILE.replace("/", "∕")
    runs = [
        invent_run(folder / str(seed), gallery.data, method=HOSTILE, seed=seed, teacher=gallery.teacher,
                   settings={HOSTILE: HOSTILE})
        for seed in (0, 1)
    ]  # fmt: skip
    frontier = invent_frontier(gallery.data, name=HOSTILE)
    analysis = invent_analysis(tmp_path / "analysis.json", gallery.data.name, [HOSTILE])
    paths = [*(run.path for run in runs), *gallery.students]
    page = render(gather(paths, gallery.folder / "data", analysis, frontier), title=HOSTILE)
    reader = read(page)
    assert not {tag for tag, _ in reader.seen} & {"script", "img"}
    assert "<script" not in page
    assert "<img" not in page
    text = "".join(reader.text)
    assert text.count(HOSTILE) >= 5
    assert reader.text[reader.text.index(HOSTILE)] == HOSTILE


def test_what_is_not_python_is_shipped() -> None:
    folder = Path(distill.report.__file__).parent
    configuration = tomllib.loads((folder.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = configuration["tool"]["setuptools"]["package-data"]["distill"]
    shipped = {path for pattern in patterns for path in folder.parent.glob(pattern)}
    others = {path for path in folder.iterdir() if path.is_file() and path.suffix != ".py"}
    assert {path.name for path in others} == {"template.html", "style.css"}
    assert others <= shipped
