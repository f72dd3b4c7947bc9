"""The blends of co-teachers that taught some runs, as rows beside theirs: what a student could have learned."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from distill.evaluation.comparison import SHOWN
from distill.evaluation.protocol import Protocol
from distill.methods.co_teachers import TEACHER, describe_blend
from distill.run import Run


def blends_of(runs: Sequence[Run]) -> dict[str, Mapping[str, Any]]:
    """Find the blends, each once, in the order of first appearance.

    Returns:
        "blend: " and what it is made of → what `metrics.json` has of it: its reports, weights and search.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for run in (run for run in runs if "blend" in run.metrics):
        blend = run.metrics["blend"]
        name = f"blend: {describe_blend(blend['weights'])}"
        if found.setdefault(name, blend) != blend:
            found[f"{name}, of {run.config['teacher']}"] = blend
    return found


def name_teachers(run: Run) -> str:
    """Say who taught a run, without the settings of co-teachers: "teacher + 0.5 turbocf"; empty where nobody did."""
    if "blend" in run.metrics:
        return re.sub(r" \([^)]*\)", "", describe_blend(run.metrics["blend"]["weights"]))
    is_taught = run.config["method"] != "scratch" and run.config.get("teacher_fingerprint")
    return TEACHER if is_taught else ""


def compare_blends(runs: Sequence[Run], *, average: str = "with-relevant") -> list[dict[str, Any]]:
    """Rows as of `compare_runs`, with no dimension, seeds, epochs or seconds: nothing was trained."""
    suffix = "_all_users" if average == "all" else ""
    rows: list[dict[str, Any]] = []
    for name, blend in blends_of(runs).items():
        row: dict[str, Any] = {"label": name, "dim": None, "seeds": [], "epochs": None, "seconds": None}
        for split in ("validation", "test"):
            report = blend.get(split + suffix, {})
            row |= {f"{split} {metric}": {"mean": report[metric], "std": 0.0} for metric in SHOWN if metric in report}
        rows.append(row)
    return rows


def reports_under(runs: Sequence[Run], protocol: Protocol, convention: str) -> dict[str, Mapping[str, Any]]:
    """Reports of the blends under a protocol, by name; a blend whose training did not report it is left out.

    Args:
        runs: Of one data set.
        protocol: What to look for.
        convention: Of the protocol and that data, which says on which users.
    """
    wanted = [f"{metric}@{k}" for metric in ("Recall", "NDCG") for k in protocol.cutoffs]
    reports = {name: blend.get(protocol.report_name, {}) for name, blend in blends_of(runs).items()}
    return {
        name: report
        for name, report in reports.items()
        if all(metric in report for metric in wanted) and report.get("convention", convention) == convention
    }
