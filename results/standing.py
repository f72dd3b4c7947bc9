"""Which rows still stand in the plan: a table must not show what was trained with other settings than it says.

A cell is found by its name, and a name outlives a change of the plan or of a default. So its recorded settings are held
against what the plan says now; a row that differs is stale, left out of every page, and named by `--list`.
"""

from __future__ import annotations

from collections.abc import Mapping

from results.cells import TEACHER, Cell, Cells, Row, is_run_of, job_of
from results.plan import Plan, Study, num_trials


def standing_cells(plan: Plan, cells: Cells) -> tuple[dict[str, Row], list[str]]:
    """Part the rows that the plan asks for from the stale ones.

    Returns:
        Name → row of those that stand, and the names of the others.
    """
    studies = {study.name: study for study in plan.studies}
    standing = {name: row for name, row in cells.items() if _stands(plan, studies, row)}
    return standing, [name for name in cells if name not in standing]


def _stands(plan: Plan, studies: Mapping[str, Study], row: Row) -> bool:
    study, name, dim, trial = studies.get(row["study"]), row["contestant"], row["dim"], row["trial"]
    if study is None:
        return False
    if name == TEACHER:
        return is_run_of(row, job_of(plan, Cell(study, TEACHER)))
    if trial is None:
        return name in study.untrained_at(dim)
    if name not in study.contestants_by_dim.get(dim, ()) or trial >= num_trials(plan, study, name):
        return False
    has_teacher = row["teacher"] is not None
    job = job_of(plan, Cell(study, name, dim, trial, row["seed"]))
    return has_teacher == plan.contestants[name].teacher and row["seed"] in study.seeds and is_run_of(row, job)
