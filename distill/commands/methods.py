"""Command `methods`: what can be distilled with, and its settings."""

from __future__ import annotations

import json
import sys
import textwrap
from typing import Any

import click

from distill.commands.options import JSON
from distill.methods import METHODS, Method
from distill.settings import describe_settings


@click.command()
@JSON
def methods(*, as_json: bool) -> None:
    """List the distillation methods with their settings and defaults.

    Example: lowpass methods
    """
    if as_json:
        click.echo(json.dumps({"methods": {name: _describe(method) for name, method in METHODS.items()}}))
        return
    for name, method in METHODS.items():
        described = _describe(method)
        click.echo(f"{name:10s} {described['summary']}")
        if described["learns_lists"]:
            click.echo(f"{'':10s} learns lists: co-teachers may be blended with the teacher, and by default are")
        for title in ("settings", "training"):
            text = ", ".join(f"{key}={value}" for key, value in described[title].items())
            if text:
                click.echo(textwrap.fill(f"{title}: {text}", 110, initial_indent=" " * 11, subsequent_indent=" " * 13))


def _describe(method: type[Method]) -> dict[str, Any]:
    """The paragraph that opens a method's module, whether lists are all it learns, settings and training defaults."""
    summary = (sys.modules[method.__module__].__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")
    settings = describe_settings(method.Settings)
    training = dict(method.training_defaults)
    return {"summary": summary, "learns_lists": method.learns_lists, "settings": settings, "training": training}
