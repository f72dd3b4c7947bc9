"""Run what is missing of a plan, in an order in which every cell finds what it needs.

A study has three rounds: the teacher; all trials and untrained models; the winning trials under the other seeds.
Cells of a round run side by side in processes of their own, so that each one's peak memory is its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

from distill.data.interactions import Interactions, load_interactions, save_interactions
from distill.data.prepare import prepare_source
from distill.errors import RunError
from distill.run import METRICS_FILE, Run, open_run
from distill.training.runner import ensure_run, run_all
from results.cells import (
    TEACHER,
    TEST,
    Cell,
    Cells,
    add_cell,
    describe_built,
    describe_run,
    job_of,
    quality_of,
    read_cells,
    winning_trial,
)
from results.plan import Plan, Study, num_trials
from results.standing import standing_cells
from results.untrained import build_untrained, rank_decoded

SAME_TEACHER = 5e-4
"""Largest difference of test Recall@20 from the recorded teacher: other processors round otherwise."""


@dataclass(frozen=True)
class Folders:
    """Where things are.

    Attributes:
        sources: Public data sets, as downloaded.
        work: Prepared data and runs; may be deleted, at the cost of training the teachers again.
        results: The plan, the table of cells, and the pages.
    """

    sources: Path
    work: Path
    results: Path

    @property
    def cells(self) -> Path:
        """The table of cells."""
        return self.results / "cells.csv"

    def data(self, name: str) -> Path:
        """A prepared data directory."""
        return self.work / "data" / name

    def run(self, cell: Cell) -> Path:
        """A cell's run directory."""
        return self.work / "runs" / cell.name


def rounds(plan: Plan, study: Study, folders: Folders) -> Iterator[list[Cell]]:
    """The study's rounds of cells; a round is made when the one before it is done."""
    yield [Cell(study, TEACHER)]
    entries = [(dim, name) for dim, names in study.contestants_by_dim.items() for name in names]
    yield [Cell(study, name, dim) for dim in study.contestants_by_dim for name in study.untrained_at(dim)] + [
        Cell(study, name, dim, trial, study.seeds[0])
        for trial in range(max((num_trials(plan, study, name) for _, name in entries), default=0))
        for dim, name in entries
        if trial < num_trials(plan, study, name)
    ]
    done, _ = standing_cells(plan, _cells_of(study, folders))
    winners = [
        (name, dim, winning_trial(study, name, dim, num_trials(plan, study, name), done)) for dim, name in entries
    ]
    yield [
        Cell(study, name, dim, winner, seed)
        for seed in study.seeds[1:]
        for name, dim, winner in winners
        if winner is not None
    ]


def _cells_of(study: Study, folders: Folders) -> Cells:
    """The rows of one study: whether a row stands costs the making of its job."""
    return {name: row for name, row in read_cells(folders.cells).items() if row["study"] == study.name}


def run_plan(plan: Plan, folders: Folders, *, only: str = "*", jobs: int = 1) -> None:
    """Run every cell that is missing.

    Args:
        plan: What is compared.
        folders: Where things are.
        only: Pattern of cell names, with * and ?.
        jobs: Processes side by side.
    """
    for study in plan.studies:
        for cells in rounds(plan, study, folders):
            done, _ = standing_cells(plan, _cells_of(study, folders))
            missing = [cell for cell in cells if fnmatch(cell.name, only) and cell.name not in done]
            if missing:
                prepare_data(plan, study.data, folders)
                if missing[0].contestant != TEACHER:
                    _restore_teacher(plan, study, folders)
                _run_side_by_side(plan, missing, folders, jobs)


def _restore_teacher(plan: Plan, study: Study, folders: Folders) -> None:
    """Train the teacher again where only its cell is left, as in a fresh clone; the cell stays as it is."""
    cell = Cell(study, TEACHER)
    if not (folders.run(cell) / METRICS_FILE).exists():
        _run_side_by_side(plan, [cell], folders, jobs=1)
    recorded = read_cells(folders.cells).get(cell.name)
    if recorded is None:
        return
    found, wanted = quality_of(open_run(folders.run(cell)).metrics)[TEST], recorded[TEST]
    if abs(found - wanted) > SAME_TEACHER:
        raise RunError(
            f"{folders.run(cell)}: its {TEST} is {found:.4f}, and in {folders.cells} that of {cell.name} is"
            f" {wanted:.4f}: give another --work or --results, or delete the rows of that study"
        )


def _run_side_by_side(plan: Plan, cells: list[Cell], folders: Folders, jobs: int) -> None:
    work = {cell.name: partial(run_cell, plan, cell, folders) for cell in cells}
    run_all(work, jobs, title=cells[0].study.name, unit="cell")


def prepare_data(plan: Plan, name: str, folders: Folders) -> None:
    """Prepare a data directory unless it is there."""
    target = folders.data(name)
    if not target.exists():
        wanted = plan.data[name]
        source = folders.sources / wanted.source
        save_interactions(prepare_source(source, wanted.prepare_options, name=source.stem), target)


def run_cell(plan: Plan, cell: Cell, folders: Folders) -> None:
    """Train or build one cell and add its row."""
    data = load_interactions(folders.data(cell.study.data))
    if cell.dim is not None and cell.trial is None:
        teacher = open_run(folders.run(Cell(cell.study, TEACHER)))
        built = build_untrained(cell.contestant, data, teacher, cell.dim)
        add_cell(folders.cells, cell, describe_built(built, data))
        return
    run = _train(plan, cell, data, folders)
    int8 = None if cell.contestant == TEACHER else rank_decoded(run, "int8", data)
    add_cell(folders.cells, cell, describe_run(run, data, int8))


def _train(plan: Plan, cell: Cell, data: Interactions, folders: Folders) -> Run:
    is_taught = cell.contestant != TEACHER and plan.contestants[cell.contestant].teacher
    teacher = open_run(folders.run(Cell(cell.study, TEACHER))) if is_taught else None
    ensure_run(job_of(plan, cell), data, folders.run(cell), teacher)
    return open_run(folders.run(cell))
