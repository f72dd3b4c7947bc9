"""What a report is made of, read and checked: runs in groups, their teacher, and what other commands wrote."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.data.interactions import Interactions, load_interactions
from distill.errors import RunError
from distill.evaluation.comparison import group_runs, label
from distill.run import Run, open_run
from distill.training.job import features_fingerprint

ANALYSIS_FIELDS = ("groups", "teacher", "students")
FRONTIER_FIELDS = ("data", "limits", "candidates", "pareto", "recommended")


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed.

    Attributes:
        name: Unique on the page.
        runs: One or more.
        colour: Number of its colour, the same in every figure; 0 is the teacher's.
    """

    name: str
    runs: tuple[Run, ...]
    colour: int

    @property
    def is_teacher(self) -> bool:
        """Whether the students' teacher is among its runs."""
        return self.colour == 0


@dataclass(frozen=True)
class Material:
    """Everything the sections may draw on.

    Attributes:
        data_name: Of the data set.
        groups: The teacher's first, where there is one.
        teacher: The run the students learned from, or None where it is not at hand.
        data: The interactions, or None.
        analysis: What `lowpass analyze` wrote, or None.
        frontier: What `lowpass frontier` wrote, or None.
    """

    data_name: str
    groups: tuple[Group, ...]
    teacher: Run | None
    data: Interactions | None = None
    analysis: Mapping[str, Any] | None = None
    frontier: Mapping[str, Any] | None = None

    @property
    def runs(self) -> list[Run]:
        """All runs, group by group."""
        return [run for group in self.groups for run in group.runs]


def gather(
    paths: Sequence[Path], data: Path | None = None, analysis: Path | None = None, frontier: Path | None = None
) -> Material:
    """Read what a report is about.

    Args:
        paths: Run directories; the teacher's need not be among them.
        data: The data directory.
        analysis: `analysis.json`.
        frontier: `frontier.json`.

    Raises:
        RunError: A run or file is unreadable, or they are about different data.
    """
    runs = [open_run(path) for path in dict.fromkeys(paths)]
    about = runs[0].config["data"]
    for run in runs:
        if run.config["data"]["fingerprint"] != about["fingerprint"]:
            raise RunError(
                f"{run.path}: was trained on other data than {runs[0].path}; report on one data set at a time"
            )
    interactions = None if data is None else load_interactions(data)
    if interactions is not None:
        runs[0].require_same_data(interactions)
    teacher = find_teacher(runs)
    if teacher is not None and all(run is not teacher for run in runs):
        runs.insert(0, teacher)
    analysed = None if analysis is None else _read(analysis, "lowpass analyze --out", ANALYSIS_FIELDS)
    if analysed is not None and analysed.get("data") != about["name"]:
        raise RunError(f"{analysis}: is about data set '{analysed.get('data')}', the runs about '{about['name']}'")
    measured = None if frontier is None else _read(frontier, "lowpass frontier", FRONTIER_FIELDS)
    if measured is not None and measured["data"].get("fingerprint") != about["fingerprint"]:
        raise RunError(f"{frontier}: is about other data than the runs; run 'lowpass frontier' on theirs")
    return Material(about["name"], build_groups(runs, teacher), teacher, interactions, analysed, measured)


def find_teacher(runs: Sequence[Run]) -> Run | None:
    """The run that the students among `runs` learned from: one of them, or where their settings say it was.

    Returns:
        None where there is no student, no teacher to be found, or more than one.
    """
    students = [run for run in runs if run.config.get("teacher_fingerprint")]
    wanted = {run.config["teacher_fingerprint"] for run in students}
    if len(wanted) != 1:
        return None
    for run in runs:
        if features_fingerprint(run) in wanted:
            return run
    for path in {Path(run.config["teacher"]) for run in students}:
        try:
            found = open_run(path)
        except RunError:
            continue
        if features_fingerprint(found) in wanted:
            return found
    return None


def build_groups(runs: Sequence[Run], teacher: Run | None) -> tuple[Group, ...]:
    """Group runs by all settings but the seed, the teacher's group first, each under a name of its own."""
    grouped = group_runs(runs)
    grouped.sort(key=lambda group: all(run is not teacher for run in group))
    has_teacher = teacher is not None
    names = [f"{label(group[0].config)}, d {group[0].dim}" for group in grouped]
    if has_teacher:
        names[0] = f"teacher ({names[0]})"
    repeated = Counter(names)
    return tuple(
        Group(
            name if repeated[name] == 1 else f"{name} ({group[0].path})",
            tuple(group),
            number if has_teacher else number + 1,
        )
        for number, (name, group) in enumerate(zip(names, grouped, strict=True))
    )


def _read(path: Path, command: str, fields: Sequence[str]) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: unreadable ({error}); '{command}' writes it") from error
    missing = [name for name in fields if not isinstance(found, dict) or name not in found]
    if missing:
        raise RunError(f"{path}: has no field '{missing[0]}'; '{command}' writes it")
    checked: Mapping[str, Any] = found
    return checked
