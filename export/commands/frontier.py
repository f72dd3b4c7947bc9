"""Command `frontier`; what is heavy is imported when it runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from distill.errors import SettingError
from export.commands.options import DIRECTORY, JSON_OPTION


def _split(kind: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Words between commas as a tuple without repetitions; None where the option is not given."""

    def convert(_: click.Context, parameter: click.Parameter, value: str | None) -> tuple[Any, ...] | None:
        if value is None:
            return None
        words = [word.strip() for word in value.split(",") if word.strip()]
        try:
            return tuple(dict.fromkeys(kind(word) for word in words))
        except ValueError as error:
            raise SettingError(f"{parameter.name}: '{value}' is not a list such as 8,16,32") from error

    return convert


@click.command()
@click.argument("data", type=DIRECTORY)
@click.option("--teacher", required=True, type=DIRECTORY, help="The teacher's run.")
@click.option(
    "--out",
    required=True,
    type=DIRECTORY,
    help="Where frontier.json, .md, .png and the students' runs go; what is trained there is used again.",
)
@click.option(
    "--methods", callback=_split(str), help="'' trains none.  [default: scratch,fd,freqd,ce,freqd+ce,ce+rcekd]"
)
@click.option("--dims", callback=_split(int), help="The students' dimensions.  [default: 8,16,32]")
@click.option("--precisions", callback=_split(str), help="[default: float32,float16,int8]")
@click.option("--baselines", callback=_split(str), help="'' for none.  [default: popularity,itemknn,ease,gfcf,turbocf]")
@click.option("--run", "runs", multiple=True, type=DIRECTORY, help="A trained student to put beside; may be repeated.")
@click.option("--backbone", default="bprmf", show_default=True, help="Of the students.")
@click.option("--co-teachers", metavar="SPEC", default="auto", show_default=True,
              help="As of 'lowpass distill', for the methods that learn lists.")  # fmt: skip
@click.option("--epochs", type=click.IntRange(1), help="Most epochs of a student.  [default: 1000]")
@click.option("--max-seconds", type=float, help="Most training time of a student.  [default: no limit]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Students trained at a time.")
@click.option("--max-bytes-per-item", type=float, help="Limit on the index.  [default: none]")
@click.option("--max-p99-ms", type=float, help="Limit on a query's search.  [default: none]")
@click.option(
    "--min-kept", type=float, default=0.95, show_default=True, help="Least share of the teacher's validation Recall@20."
)
@click.option(
    "--ann-recall",
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="What an index must find of the exact top 20.",
)
@JSON_OPTION
def frontier(data: Path, teacher: Path, out: Path, *, as_json: bool, **options: Any) -> None:
    """Find the compressed model to serve: train, shrink and measure every candidate, and recommend one.

    Methods × dimensions are trained, one run each, and stored at every precision; the teacher is rounded,
    product-quantised and cut by SVD; baselines are fitted. All are measured side by side, the best of them under the
    indexes that 'lowpass export' would choose too, and the smallest that the validation users cannot tell from the best
    within the limits is recommended. With other limits or more methods the
    command trains only what is missing. Where nothing fits, it says which limit to relax, and still exits with 0.

    Beyond 5·10⁹ pairs of user and item, methods that score every pair are left out and students train 600 seconds,
    unless --methods, --epochs or --max-seconds say otherwise; quality is measured on a sample of users, and the indexes
    of all models together are looked for in 600 seconds of processor time, not those of each.

    Example: lowpass frontier data/citeulike --teacher runs/teacher --out runs/frontier --max-bytes-per-item 64
    """
    from export.frontier.choice import Limits
    from export.frontier.document import render_summary
    from export.frontier.job import Request, run_frontier
    from export.frontier.plan import Plan

    given = {name: options.pop(name) for name in ("methods", "dims", "precisions", "baselines")}
    training = {name: options.pop(name) for name in ("epochs", "max_seconds")}
    limits = Limits(**{name: options.pop(name) for name in ("max_bytes_per_item", "max_p99_ms", "min_kept")})
    plan = Plan(
        **{name: value for name, value in given.items() if value is not None},
        backbone=options.pop("backbone"),
        co_teachers=options.pop("co_teachers"),
        training={**training, "seed": options["seed"]},
    )
    chosen = frozenset(name for name, value in {**given, **training}.items() if value is not None)
    document = run_frontier(Request(data, teacher, out, plan, limits, given=chosen, **options))
    if as_json:
        click.echo(json.dumps(document))
        return
    click.echo(render_summary(document))
    click.echo(f"\nAll {len(document['candidates'])} candidates: {out / 'frontier.md'}; plot: {out / 'frontier.png'}")
