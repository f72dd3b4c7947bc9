"""From material to HTML. The template escapes everything that is not a figure drawn here."""

from __future__ import annotations

from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined

from distill.report.comparison import build_comparison, build_significance, build_summary
from distill.report.curves import build_learning
from distill.report.frequencies import build_frequencies
from distill.report.frontier import build_frontier
from distill.report.material import Material
from distill.report.recommendations import build_popularity, rank_all
from distill.report.section import LeftOut, Section
from distill.report.settings import build_settings_section
from distill.report.svg import NUM_COLOURS


def build_sections(material: Material, *, progress: bool = False) -> list[Section | LeftOut]:
    """All sections, in the order of the page, those without material as `LeftOut`.

    Args:
        material: What there is.
        progress: Show bars where somebody looks.
    """
    lists = rank_all(material, progress=progress)
    return [
        build_comparison(material),
        build_significance(material, lists),
        build_learning(material),
        build_frequencies(material, progress=progress),
        build_popularity(material, lists),
        build_frontier(material),
        build_settings_section(material),
    ]


def render_page(material: Material, sections: list[Section | LeftOut], title: str) -> str:
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
        num_colours=NUM_COLOURS,
        version=version("lowpass"),
    )
