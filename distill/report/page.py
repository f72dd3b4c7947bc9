"""From sections to HTML: one self-contained page. The template escapes everything that is not a figure drawn here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined

from distill.report.figures.style import NUM_COLOURS, THEMES
from distill.report.material import Material
from distill.report.sections import LeftOut, Section, build_summary


def render_page(material: Material, sections: Sequence[Section | LeftOut], title: str) -> str:
    """The page of a set of runs, in one string.

    Args:
        material: What it is about.
        sections: From `build_sections`.
        title: Its heading.
    """
    runs, groups = len(material.runs), len(material.groups)
    about = f"Data set {material.data_name}, {_count(runs, 'run')} under {_count(groups, 'setting')}."
    return render_sections(sections, title, about, build_summary(material))


def render_sections(
    sections: Sequence[Section | LeftOut], title: str, about: str, cards: Sequence[tuple[str, str, str]]
) -> str:
    """A page, in one string.

    Args:
        sections: In order.
        title: Its heading.
        about: What it is about, in a sentence.
        cards: The few numbers that open it: a heading, the number, and what it is.
    """
    environment = Environment(
        loader=PackageLoader("distill", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("template.html").render(
        title=title,
        about=about,
        cards=cards,
        sections=[section for section in sections if isinstance(section, Section)],
        left_out=[section for section in sections if isinstance(section, LeftOut)],
        themes=THEMES,
        num_colours=NUM_COLOURS,
        version=version("lowpass"),
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"
