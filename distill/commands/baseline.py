"""Command `baseline`: what a practitioner tries first, on the same terms as every run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from distill.data.interactions import Interactions, load_interactions
from distill.errors import SettingError
from distill.evaluation.baselines import BASELINES, EASE_MAX_BYTES, GRIDS, TUNING_METRIC, tune
from distill.evaluation.protocol import evaluate_scores, report_splits


@click.command()
@click.argument("data", type=click.Path(path_type=Path, file_okay=False))
@click.option("--method", type=click.Choice([*BASELINES, "all"]), default="all", show_default=True)
@click.option("--ease-max-bytes", type=click.IntRange(1), default=EASE_MAX_BYTES, show_default=True,
              help="EASE is left out where it would hold more.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def baseline(data: Path, method: str, ease_max_bytes: int, *, as_json: bool) -> None:
    """Tune popularity, ItemKNN and EASE on validation and report them like a run, on the data directory DATA.

    Tried are, for ItemKNN, 5 to 200 neighbours with shrinkage 0, 10 and 100; for EASE, a regularisation of 3 to
    3000. The best validation NDCG@10 wins.

    Example: lowpass baseline data/citeulike-t --method itemknn
    """
    interactions = load_interactions(data)
    if method == "all":
        reports = {name: _report_or_refusal(name, interactions, ease_max_bytes) for name in BASELINES}
    else:
        reports = {method: _report(method, interactions, ease_max_bytes)}
    if as_json:
        click.echo(json.dumps({"data": interactions.name, "baselines": reports}))
        return
    for name, report in reports.items():
        _echo(name, report)


def _report_or_refusal(name: str, data: Interactions, ease_max_bytes: int) -> dict[str, Any]:
    """The others are of use where one needs too much memory."""
    try:
        return _report(name, data, ease_max_bytes)
    except SettingError as error:
        if name != "ease":
            raise
        return {"refused": str(error)}


def _report(name: str, data: Interactions, ease_max_bytes: int) -> dict[str, Any]:
    tuned = tune(name, data, ease_max_bytes=ease_max_bytes, progress=True)
    return {
        "settings": dict(tuned.settings),
        "bytes": tuned.baseline.num_bytes,
        "seconds": round(tuned.seconds, 3),
        "tuning": {"metric": f"validation {TUNING_METRIC}", "tried": [dict(point) for point in tuned.tried]},
        **report_splits(partial(evaluate_scores, tuned.baseline.score_rows, data, progress=True), data),
    }


def _echo(name: str, report: dict[str, Any]) -> None:
    if "refused" in report:
        click.echo(f"{name}: left out ({report['refused']})")
        return
    settings = "".join(f", {key} {value:g}" for key, value in report["settings"].items())
    click.echo(
        f"{name}{settings} (best of {len(GRIDS[name])}): {report['bytes']:,} bytes, {report['seconds']} s to build"
    )
    for split in ("validation", "validation_all_users", "test", "test_all_users"):
        if split in report:
            found = report[split]
            quality = f"Recall@20 {found['Recall@20']:.4f}  NDCG@20 {found['NDCG@20']:.4f}"
            click.echo(f"  {split:20s} {quality}  ({found['convention']})")
