"""The ablation table: what is left of the recipe's quality when one of its parts is taken away or exchanged."""

from __future__ import annotations

import numpy as np

from distill.report.tables import Table, render_markdown
from results.cells import BLEND_TEST, TEACHER, TEST, Cell, Cells
from results.kept import MISSING, kept_shares, rows_of, share_and_spread
from results.plan import Plan, Study

RECIPE = "recipe"
ABLATIONS = {
    RECIPE: "the whole recipe: ce+rcekd, taught by the teacher and the co-teachers that validation chose",
    "recipe-ce": "without rcekd: ce alone",
    "recipe-teacher": "without co-teachers: teacher alone",
    "ce+rcekd": "without co-teachers, best of its own trials",
    "recipe-alone": "without the teacher: co-teachers alone",
    "recipe-closed": "co-teachers exchanged: all but iALS",
    "recipe-ials": "co-teachers exchanged: iALS only",
    "recipe-filter": "co-teachers exchanged: graph filters only",
    "recipe-ease": "co-teachers exchanged: EASE only",
    "recipe-low": "co-teachers exchanged: lowest 128 frequencies only",
    "recipe-high": "co-teachers exchanged: highest 128 frequencies only",
    "recipe-all": "co-teachers exchanged: 128 frequencies spread over all",
    "recipe-sampled": "as of a large catalogue: `ce` over 1,024 sampled items, users ranked in turns",
    "recipe-mf": "student exchanged: BPRMF, whatever the teacher is",
    "ce+rcekd-mf": "student exchanged, without co-teachers",
    "scratch": "without any teaching: the bare student, best of its own trials",
}
"""Contestant → what of the recipe it lacks or has exchanged, in the order of the table."""
BLEND = "no student: the lists that taught the recipe, as they are"
WORDS = """\
Each row says what it changes in the recipe. Shares of the teacher's test Recall@20 at the study's first dimension, mean
± sample standard deviation over seeds, each contestant at its best trial by validation; – has not been run.
"Frequencies" are those of the graph of interactions; what scores by them has half the teacher's weight."""


def render_ablation(plan: Plan, cells: Cells) -> str:
    """Write out the table, a column a study; without the recipe's own cells it is empty.

    Args:
        plan: Its studies come in order; those with none of the cells are left out.
        cells: What has been run.
    """
    studies = [study for study in plan.studies if _has_recipe(plan, study, cells)]
    if not studies:
        return ""
    rows = [[words, f"`{name}`", *(_share(plan, study, name, cells) for study in studies)]
            for name, words in ABLATIONS.items()]  # fmt: skip
    rows.append([BLEND, "", *(_blend_share(plan, study, cells) for study in studies)])
    shown = [row for row in rows if any(text != MISSING for text in row[2:])]
    header = ["what is taken away or exchanged", "contestant", *(study.name for study in studies)]
    table = render_markdown(Table("", header, shown, words=2))
    return f"## What each part of the recipe is worth\n\n{WORDS}\n\n{table}"


def _has_recipe(plan: Plan, study: Study, cells: Cells) -> bool:
    names = [name for name in ABLATIONS if name.startswith(RECIPE)]
    is_there = any(rows_of(plan, study, name, study.dim, cells) for name in names)
    return is_there and Cell(study, TEACHER).name in cells


def _share(plan: Plan, study: Study, name: str, cells: Cells) -> str:
    teacher = cells[Cell(study, TEACHER).name]
    return share_and_spread(kept_shares(rows_of(plan, study, name, study.dim, cells), teacher)[:, 0])


def _blend_share(plan: Plan, study: Study, cells: Cells) -> str:
    teacher = cells[Cell(study, TEACHER).name]
    found = [row[BLEND_TEST] for row in rows_of(plan, study, RECIPE, study.dim, cells) if row[BLEND_TEST] is not None]
    return f"{np.mean(found) / teacher[TEST]:.1%}" if found else MISSING
