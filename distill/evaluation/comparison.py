"""Runs side by side: those that differ only in their seed make one line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from distill.errors import RunError
from distill.run import Run

SPLITS = ("validation", "test")
SHOWN = ("Recall@20", "NDCG@20")
SYMBOLS = {"distillation_weight": "β", "temperature": "τ", "num_top": "K", "alpha": "α"}
"""Settings that a run's label shows, where it has them."""


def compare_runs(runs: Sequence[Run], *, average: str = "with-relevant") -> list[dict[str, Any]]:
    """Group runs by all their settings but the seed.

    Args:
        runs: Finished runs.
        average: "with-relevant" or "all": which of the stored reports to read.

    Returns:
        One row a group, in the order of first appearance: its settings, seeds, and for validation and test the
        mean and the sample standard deviation (0 for one seed) of each metric shown.

    Raises:
        RunError: Two runs were trained on different data, or measured on different users, so that their reports say
            nothing of each other.
    """
    first = runs[0].config.get("data", {})
    for run in runs[1:]:
        data = run.config.get("data", {})
        if data.get("fingerprint") != first.get("fingerprint"):
            raise RunError(
                f"{run.path}: was trained on other data ('{data.get('name')}') than {runs[0].path}"
                f" ('{first.get('name')}'); compare runs of one data set"
            )
    suffix = "_all_users" if average == "all" else ""
    for split in SPLITS:
        require_one_convention(runs, split + suffix)
    return [_row(group, suffix) for group in group_runs(runs)]


def require_one_convention(runs: Sequence[Run], report: str) -> None:
    """Check that stored reports were measured alike, on the same users.

    Args:
        runs: Those without the report are passed over.
        report: Its name in `metrics.json`.

    Raises:
        RunError: Two differ.
    """
    measured = {run.metrics[report].get("convention"): run.path for run in runs if report in run.metrics}
    if len(measured) > 1:
        (first, one), (second, other) = list(measured.items())[:2]
        raise RunError(
            f"{other}: its '{report}' was measured otherwise than that of {one} ('{second}', not '{first}'); rank both "
            "anew: lowpass evaluate RUN … --data DATA --save, with their --split and --average"
        )


def group_runs(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs that have all settings but the seed in common, in the order of first appearance."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        settings = {key: value for key, value in run.config.items() if key != "seed"}
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(run)
    return list(groups.values())


def _row(group: list[Run], suffix: str) -> dict[str, Any]:
    config = group[0].config
    row: dict[str, Any] = {
        "label": label(config),
        "backbone": config["backbone"],
        "dim": config["dim"],
        "seeds": [run.config.get("seed") for run in group],
        "epochs": _mean([run.metrics.get("training", {}).get("best_epoch", 0) for run in group]),
        "seconds": _mean([run.metrics.get("training", {}).get("seconds", 0.0) for run in group]),
    }
    for split in SPLITS:
        for metric in SHOWN:
            values = [run.metrics[split + suffix][metric] for run in group if split + suffix in run.metrics]
            if values:
                spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
                row[f"{split} {metric}"] = {"mean": float(np.mean(values)), "std": spread}
    return row


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 1)


def label(config: Any) -> str:
    """A short name of what a run is: method, who else taught, and the settings that set it apart."""
    settings = config.get("method_settings") or {}
    parts = [config["method"]]
    if config["method"] == "freqd":
        parts.append(settings["variant"])
    parts += [str(settings[name]) for name in ("projector", "loss") if name in settings]
    parts += [f"{symbol} {settings[name]:g}" for name, symbol in SYMBOLS.items() if settings.get(name)]
    if config.get("co_teachers", "none") != "none":
        parts.append(f"co-teachers {config['co_teachers']}" + (" alone" if config.get("teacher") is None else ""))
    if config.get("start", "random") != "random":
        parts.append(f"start {config['start']}")
    if config.get("continue_from"):
        parts.append("continued")
    if "training" in config:
        parts.append(f"wd {config['training']['weight_decay']:g}")
    if config["backbone"] not in {"bprmf", "imported"}:
        parts.insert(0, config["backbone"])
    return " ".join(parts)
