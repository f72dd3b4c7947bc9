"""Models ranked under one protocol, side by side: runs, their seeds together, and what students keep of a teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distill.data.interactions import Interactions
from distill.evaluation.comparison import group_runs, label
from distill.evaluation.metrics import METRICS
from distill.evaluation.protocol import EvaluationReport, Protocol, evaluate
from distill.run import Run, features_fingerprint


def evaluate_run(
    run: Run, data: Interactions, protocol: Protocol | None = None, *, progress: bool = False
) -> EvaluationReport:
    """Rank the whole catalogue for every user, or a sample of them, with a run's embeddings.

    Raises:
        RunError: The run was trained on other data.
        SettingError: As `evaluate`.
    """
    run.require_same_data(data)
    return evaluate(run.user_embeddings, run.item_embeddings, data, protocol, progress=progress)


def rank_models(
    runs: Sequence[Run], reports: Sequence[Mapping[str, Any]], baselines: Mapping[str, Mapping[str, Any]], cutoff: int
) -> list[dict[str, Any]]:
    """Put reports of one protocol side by side.

    Args:
        runs: Those that differ only in their seed make one row.
        reports: What `evaluate_run` found of each.
        baselines: What `report_baselines` found, and reports of whatever else is no run; what was refused is left out.
        cutoff: k of the Recall@k by which students are held against their teacher, where it is among the runs.

    Returns:
        One row a model: "label", "dim", "seeds", "runs" (paths), "kept" (a student's share of its teacher's Recall@k,
        mean over seeds, or None), and of each metric the mean and the sample standard deviation (0 for one seed). Where
        users were drawn, also "standard_error" of each metric, the largest over seeds.
    """
    teachers: dict[str | None, float] = {
        features_fingerprint(run): report[f"Recall@{cutoff}"] for run, report in zip(runs, reports, strict=True)
    }
    evaluated = [replace(run, metrics=report) for run, report in zip(runs, reports, strict=True)]
    rows = []
    for group in group_runs(evaluated):
        whole = teachers.get(group[0].config.get("teacher_fingerprint"))
        metrics = _means([run.metrics for run in group])
        rows.append({
            "label": label(group[0].config),
            "dim": group[0].dim,
            "seeds": [run.config.get("seed") for run in group],
            "runs": [str(run.path) for run in group],
            "kept": metrics[f"Recall@{cutoff}"]["mean"] / whole if whole else None,
            **metrics,
        })  # fmt: skip
    nothing: dict[str, Any] = {"dim": None, "seeds": [], "runs": [], "kept": None}
    rows += [
        {"label": name, **nothing, **_means([report])} for name, report in baselines.items() if "refused" not in report
    ]
    return rows


def _means(reports: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name in (name for name in reports[0] if name.split("@")[0] in METRICS):
        values = [report[name] for report in reports]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        found[name] = {"mean": float(np.mean(values)), "std": spread}
    errors = [report["standard_error"] for report in reports if "standard_error" in report]
    return {**found, "standard_error": largest_errors(errors)} if errors else found


def largest_errors(errors: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The largest standard error of each metric that all models have."""
    return {name: max(one[name] for one in errors) for name in errors[0] if all(name in one for one in errors)}
