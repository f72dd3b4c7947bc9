"""Others' published figures, `published.toml`, beside ours: they are quoted, never measured here.

Example:
    source = "Table 1 of …"             # where the figures stand
    data = ["CiteULike", "Yelp"]        # the columns, as the authors name their data
    [[table]]                           # one pair of teacher and student
    title = "MF → MF"
    ours = "citeulike-ordered/bprmf"    # our study of the first data set; none where there is no like
    [[table.row]]
    name = "RCE-KD"
    ours = "rcekd"                      # our contestant; none where there is no like
    figures = [[0.0431, 0.0194], [0.0667, 0.0345]]     # Recall@20 and NDCG@20 on each; none for ours alone
"""

from __future__ import annotations

import tomllib
from dataclasses import field
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from distill.errors import SettingError
from distill.report.tables import Table, render_markdown
from results.cells import TEACHER, TEST, Cell, Cells, Row
from results.kept import MISSING, kept_shares, rows_of
from results.plan import Plan, Study

FILE = "published.toml"
CLOSED = ConfigDict(extra="forbid")


@checked(frozen=True, config=CLOSED)
class PublishedRow:
    """One method: its Recall@20 and NDCG@20 on each data set as published, and the name of our contestant."""

    name: str
    ours: str = ""
    figures: tuple[tuple[float, float], ...] = ()


@checked(frozen=True, config=CLOSED)
class PublishedTable:
    """One pair of teacher and student; the first row is the teacher's."""

    title: str
    row: tuple[PublishedRow, ...]
    ours: str = ""


@checked(frozen=True, config=CLOSED)
class Published:
    """What one source says."""

    source: str
    data: tuple[str, ...]
    table: tuple[PublishedTable, ...] = field(default_factory=tuple)


def load_published(path: Path) -> Published:
    """Read and check published figures.

    Raises:
        SettingError: Unreadable, an unknown key, or a row that has not two figures for every data set.
    """
    try:
        found = TypeAdapter(Published).validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except (OSError, tomllib.TOMLDecodeError, ValidationError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise SettingError(f"{path}: unreadable published figures ({reason})") from error
    for table in found.table:
        for row in table.row:
            if len(row.figures) != len(found.data) and (row.figures or row is table.row[0]):
                raise SettingError(f"{path}: {table.title}, {row.name}: give {len(found.data)} pairs of figures")
    return found


def render_published(plan: Plan, cells: Cells, folder: Path) -> str:
    """Write out the page of published figures; empty where the folder has none.

    Args:
        plan: Of our studies.
        cells: Ours.
        folder: Holds `published.toml`, and the text of the page in `readings/published.md`.
    """
    if not (folder / FILE).is_file():
        return ""
    published = load_published(folder / FILE)
    reading = folder / "readings" / "published.md"
    parts = ["# Published figures beside ours", f"Quoted from {published.source}; written by `make results`."]
    parts += [reading.read_text(encoding="utf-8").strip("\n")] if reading.is_file() else []
    for table in published.table:
        parts += [f"## {table.title}", render_markdown(_tabulate(published, table, plan, cells))]
    return "\n\n".join(parts) + "\n"


def _tabulate(published: Published, table: PublishedTable, plan: Plan, cells: Cells) -> Table:
    study = next((study for study in plan.studies if study.name == table.ours), None)
    ours = [_ours(study, row.ours, plan, cells) for row in table.row]
    header = ["method", *(text for data in published.data for text in (f"{data} R / N", "kept"))]
    shown = [(row, own) for row, own in zip(table.row, ours, strict=True) if row.figures or own[0] != MISSING]
    if any(own[0] != MISSING for own in ours):
        return Table("", [*header, f"ours: {table.ours}", "kept"],
                     [[*_theirs(row, table, len(published.data)), *own] for row, own in shown])  # fmt: skip
    return Table("", header, [_theirs(row, table, len(published.data)) for row, _ in shown])


def _theirs(row: PublishedRow, table: PublishedTable, count: int) -> list[str]:
    texts = [f"{row.name}"]
    for number in range(count):
        if not row.figures:
            texts += [MISSING, MISSING]
            continue
        recall, ndcg = row.figures[number]
        texts += [f"{recall:.4f} / {ndcg:.4f}", f"{recall / table.row[0].figures[number][0]:.1%}"]
    return texts


def _ours(study: Study | None, name: str, plan: Plan, cells: Cells) -> list[str]:
    teacher: Row | None = None if study is None else cells.get(Cell(study, TEACHER).name)
    if study is None or teacher is None or not name:
        return [MISSING, MISSING]
    rows = [teacher] if name == TEACHER else rows_of(plan, study, name, study.dim, cells)
    if not rows:
        return [MISSING, MISSING]
    recall, ndcg = (np.mean([row[column] for row in rows]) for column in (TEST, "test NDCG@20"))
    return [f"{recall:.4f} / {ndcg:.4f}", f"{kept_shares(rows, teacher)[:, 0].mean():.1%}"]
