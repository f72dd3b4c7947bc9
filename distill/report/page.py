"""From sections to HTML: one self-contained page. The template escapes everything that is not a figure drawn here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined

from distill.report.figures.style import NUM_COLOURS, THEMES
from distill.report.material import Material
from distill.report.sections import LeftOut, Section, build_summary


def render_page(material: Material, sections: Sequence[Section | LeftOut], title: str) -> str:
    """The page, in one string.

    Args:
        material: What it is about.
        sections: From `build_sections`.
        title: Its heading.
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
        data_name=material.data_name,
        num_runs=len(material.runs),
        num_groups=len(material.groups),
        cards=build_summary(material),
        sections=[section for section in sections if isinstance(section, Section)],
        left_out=[section for section in sections if isinstance(section, LeftOut)],
        themes=THEMES,
        num_colours=NUM_COLOURS,
        version=version("lowpass"),
    )
