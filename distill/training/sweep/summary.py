"""What a sweep found: `sweep.json`, the table of the best trials, and the command that trains the best one again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from distill.training.sweep.plan import Plan
from distill.training.sweep.study import ENDED, OBJECTIVE, read_error, read_metrics, run_path, sampled_values

SHOWN_TRIALS = 10
CONVENTION = "validation, mean over users with relevant items"


def summarize(study: Study, plan: Plan, out: Path, data_name: str) -> dict[str, Any]:
    """Everything a sweep knows so far, ready for JSON.

    Args:
        study: Its trials.
        plan: What was swept.
        out: The sweep's directory.
        data_name: Of the data set.

    Returns:
        "data", "objective", what `Plan.describe` says, "trials" in order, "best" (a trial) and the "command" that
        trains it, both None where no trial has finished.
    """
    trials = [_describe(trial, plan, out) for trial in study.get_trials(deepcopy=False, states=ENDED)]
    finished = [trial for trial in trials if trial["value"] is not None]
    best = max(finished, key=lambda trial: trial["value"], default=None)
    return {
        "data": data_name,
        "objective": f"{OBJECTIVE} ({CONVENTION})",
        **plan.describe(),
        "trials": trials,
        "best": best,
        "command": None if best is None else plan.command(best["settings"], str(out / "best")),
    }


def render_summary(summary: Mapping[str, Any]) -> str:
    """The best trials as a Markdown table, what failed, and the command."""
    names = [axis["name"] for axis in summary["space"]]
    header = ["trial", *names, f"validation {OBJECTIVE}", "best epoch", "training s"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    finished = [trial for trial in summary["trials"] if trial["value"] is not None]
    for trial in sorted(finished, key=lambda trial: -trial["value"])[:SHOWN_TRIALS]:
        cells = [str(trial["number"]), *(str(trial["settings"][name]) for name in names)]
        cells += [f"{trial['value']:.4f}", str(trial["best_epoch"]), f"{trial['seconds']:g}"]
        lines.append("| " + " | ".join(cells) + " |")
    failed = [trial for trial in summary["trials"] if trial["value"] is None]
    if failed:
        lines += ["", f"{len(failed)} of {len(summary['trials'])} trials failed:"]
        lines += [f"  trial {trial['number']}: {trial['error']}" for trial in failed[:SHOWN_TRIALS]]
    lines += ["", "the best, trained again:", f"  {summary['command']}"]
    return "\n".join(lines)


def _describe(trial: FrozenTrial, plan: Plan, out: Path) -> dict[str, Any]:
    complete = trial.state == TrialState.COMPLETE
    training = read_metrics(out, trial.number)["training"] if complete else {}
    known = {axis.name for axis in plan.axes} <= set(trial.params)
    return {
        "number": trial.number,
        "run": str(run_path(out, trial.number)),
        "settings": sampled_values(plan.axes, trial) if known else None,
        "value": trial.value if complete else None,
        "best_epoch": training.get("best_epoch"),
        "seconds": training.get("seconds"),
        "error": None if complete else read_error(out, trial.number),
    }
