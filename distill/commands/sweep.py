"""Command `sweep`: looks for good settings of a method."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from distill.backbones import BACKBONES
from distill.commands.options import DIRECTORY, EVAL_USERS, JSON, SETTING, parse_pairs
from distill.data.interactions import Interactions, load_interactions
from distill.errors import RunError, SettingError
from distill.evaluation.comparison import label
from distill.evaluation.protocol import describe_sample
from distill.report.figures import draw_sweep, encode_png
from distill.run import features_fingerprint, open_run
from distill.storage import write_file
from distill.training.job import RECOMMENDED_METHOD
from distill.training.sweep.plan import Plan, needs_teacher, parse_space
from distill.training.sweep.study import MAX_GRID, OBJECTIVE, Budget, open_study, run_sweep, summarize

DEFAULT_TRIALS = 30
SHOWN_TRIALS = 10


@click.command()
@click.argument("data", type=DIRECTORY)
@click.option("--teacher", type=DIRECTORY, help="The teacher's run.")
@click.option("--out", type=DIRECTORY, required=True, help="The sweep's directory; an unfinished sweep there goes on.")
@click.option("--method", default=RECOMMENDED_METHOD, show_default=True, help="A method, or several such as freqd+ce.")
@click.option("--range", "ranges", multiple=True, metavar="NAME=LOW:HIGH",
              help="Vary a number; NAME=log:LOW:HIGH on a logarithmic scale. May be repeated.")  # fmt: skip
@click.option("--choice", "choices", multiple=True, metavar="NAME=A,B,…", help="Vary over a list. May be repeated.")
@click.option("--set", "fixed", multiple=True, metavar=SETTING, callback=parse_pairs,
              help="Fix any other setting. May be repeated.")  # fmt: skip
@click.option("--backbone", type=click.Choice(list(BACKBONES)), default="bprmf", show_default=True)
@click.option("--backbone-set", "backbone_settings", multiple=True, metavar=SETTING, callback=parse_pairs,
              help="A setting of the backbone.")  # fmt: skip
@click.option("--trials", type=click.IntRange(1),
              help="Trials in all, earlier sittings included.  [default: 30, or the whole grid]")  # fmt: skip
@click.option("--grid", is_flag=True, help="Try every combination; without it Optuna's TPE chooses.")
@click.option("--points", type=click.IntRange(2), default=5, show_default=True, help="Values of each range in a grid.")
@click.option("--jobs", type=click.IntRange(1), default=2, show_default=True, help="Trials at once, one thread each.")
@EVAL_USERS
@click.option("--max-seconds", type=float, help="Training time of a trial.  [default: no limit]")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every training and of the drawn settings.")
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, …")
@click.option("--reference", "references", type=DIRECTORY, multiple=True, help="A run to draw as a level line.")
@JSON
def sweep(
    data: Path, *, teacher: Path | None, out: Path, method: str, ranges: tuple[str, ...], choices: tuple[str, ...],
    fixed: dict[str, str], backbone: str, backbone_settings: dict[str, str], trials: int | None, grid: bool,
    points: int, jobs: int, eval_users: int | None, max_seconds: float | None, seed: int, device: str,
    references: tuple[Path, ...], as_json: bool,
) -> None:  # fmt: skip
    """Look for the settings of a method that are best on validation, on the data directory DATA.

    Each trial is a run under OUT/trials that evaluate, report and analyze read; test quality is never looked at.
    Any setting of the method, any training option and the student's dim can be varied; 'lowpass methods' lists them.

    Example: lowpass sweep data/mine --teacher runs/teacher --out sweeps/freqd --method freqd --range alpha=0:1
    --range distillation_weight=log:0.01:10 --choice dim=8,20 --trials 30
    """
    plan = Plan(
        data,
        teacher if needs_teacher(method) else None,
        method,
        backbone,
        backbone_settings,
        parse_space(ranges, choices, method),
        fixed,
        seed,
        max_seconds,
        device,
        eval_users,
    )
    plan.check()
    interactions = load_interactions(data)
    said = describe_sample(interactions, eval_users)
    if said and not as_json:
        click.echo(said)
    fingerprints = {"data": interactions.fingerprint, "teacher": _check_teacher(plan, interactions)}
    levels = [_level(path, interactions) for path in references]
    budget = Budget(trials or (MAX_GRID if grid else DEFAULT_TRIALS), jobs, points if grid else None)

    def write() -> dict[str, Any]:
        summary = summarize(study, plan, out, interactions.name)
        write_file(out / "sweep.json", (json.dumps(summary, indent=2) + "\n").encode())
        return summary

    with open_study(plan, fingerprints, out, budget.grid_points) as study:
        run_sweep(study, plan, out, budget, ended=write, progress=True)
        summary = write()
    write_file(out / "sweep.png", encode_png(draw_sweep(summary, levels)))
    click.echo(json.dumps(summary) if as_json else render_summary(summary))


def _check_teacher(plan: Plan, data: Interactions) -> str | None:
    """The teacher's fingerprint; every trial would fail for want of it, so it is checked first."""
    if plan.teacher is None:
        if needs_teacher(plan.method):
            raise SettingError(f"teacher: method '{plan.method}' distills from one; give --teacher RUN")
        return None
    return features_fingerprint(open_run(plan.teacher, data))


def _level(path: Path, data: Interactions) -> tuple[str, float]:
    run = open_run(path, data)
    if "validation" not in run.metrics:
        raise RunError(
            f"{path}: has no validation report to draw; 'lowpass evaluate --split validation --save' adds it"
        )
    return f"{label(run.config)}, d {run.dim}", run.metrics["validation"][OBJECTIVE]


def render_summary(summary: Mapping[str, Any]) -> str:
    """The best trials as a Markdown table, what failed, and the command that trains the best one again."""
    names = [axis["name"] for axis in summary["space"]]
    header = ["trial", *names, f"validation {OBJECTIVE}", "best epoch", "training s"]
    finished = [trial for trial in summary["trials"] if trial["value"] is not None]
    failed = [trial for trial in summary["trials"] if trial["value"] is None]
    rows = [
        [trial["number"], *(trial["settings"][name] for name in names), f"{trial['value']:.4f}", trial["best_epoch"],
         f"{trial['seconds']:g}"]
        for trial in sorted(finished, key=lambda trial: -trial["value"])[:SHOWN_TRIALS]
    ]  # fmt: skip
    lines = [tabulate(rows, header, tablefmt="pipe", disable_numparse=True, stralign="right")]
    if failed:
        lines += ["", f"{len(failed)} of {len(summary['trials'])} trials failed:"]
        lines += [f"  trial {trial['number']}: {trial['error']}" for trial in failed[:SHOWN_TRIALS]]
    lines += ["", "the best, trained again:", f"  {summary['command']}"]
    return "\n".join(lines)
