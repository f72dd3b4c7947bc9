"""The pages made of cells: RESULTS.md with what each contestant keeps of its teacher, and a page a study.

What is written by hand stands in `readings/` and is put between the tables as it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from distill.report.tables import Table, mean_and_spread, render_markdown
from results.ablation import render_ablation
from results.cells import (
    BLEND_SECONDS,
    BLEND_TEST,
    BLEND_VALIDATION,
    EQUAL_TIMES,
    INT8,
    TEACHER,
    TEST,
    VALIDATION,
    Cell,
    Cells,
    Row,
    best_by,
    winning_cells,
    within,
)
from results.figures import caption_of, picture_paths, pictured
from results.kept import MISSING, Shares, kept_shares, rows_of, share_and_spread
from results.plan import Plan, Study, num_trials
from results.published import render_published
from results.standing import standing_cells

LISTS = f"its lists' {TEST}"
QUALITY_HEADER = (
    "contestant",
    "d",
    "B an item",
    "seeds",
    VALIDATION,
    TEST,
    LISTS,
    "test NDCG@20",
    "kept",
    "at a byte a number",
    *(f"val. in {seconds} s" for seconds in EQUAL_TIMES),
    "val. in a third of the teacher's s",
    "best epoch",
    "processor s",
    "peak MiB",
)
BLENDS = (
    "Who learned from a blend's lists (of each scorer, standardised per user, as much as the number before it says):\n"
)
TRIALS_HEADER = ("contestant", "d", "trial", VALIDATION, TEST, "processor s", "taken")


def render_pages(plan: Plan, cells: Cells, folder: Path, out: Path) -> dict[Path, str]:
    """Write out every page that is made of cells.

    Args:
        plan: Its studies come in order.
        cells: What has been run; stale rows are left out, and a study without its teacher has no page.
        folder: Holds `readings/` (`introduction.md`, `conclusion.md`, and `<data>-<backbone>.md` for each study); its
            `studies/` gets a page each. `published.toml` and `readings/published.md`, where they
            are there, make `notes/published.md`.
        out: Where the page over all studies goes: between introduction and conclusion it has the summary, the figure,
            the ablations and the list of the studies.

    Returns:
        Path → Markdown.
    """
    cells, _ = standing_cells(plan, cells)
    studies = [study for study in plan.studies if Cell(study, TEACHER).name in cells]
    paths = {study.name: folder / "studies" / f"{study.file_name}.md" for study in studies}
    pages = {path: render_study(plan, study, cells, path) for study, path in zip(studies, paths.values(), strict=True)}
    if published := render_published(plan, cells, folder):
        pages[folder / "notes" / "published.md"] = published
    links = [f"- [{name}]({_relative(path, out)})" for name, path in paths.items()]
    parts = [
        "# Results",
        _prose(folder, "introduction"),
        render_summary(plan, cells),
        *(_figure(study, folder, out) for study in pictured(plan, cells)[:1]),
    ]
    parts += [render_ablation(plan, cells), "\n".join(links), _prose(folder, "conclusion")]
    return {**pages, out: _join(*parts)}


def _figure(study: Study, folder: Path, page: Path) -> str:
    """Show the picture and lead to the one that can be enlarged."""
    png, svg = (_relative(path, page) for path in picture_paths(study, folder))
    return f"[![Quality by size and by training time]({png})]({svg})\n\n{caption_of(study)}"


def render_study(plan: Plan, study: Study, cells: Cells, page: Path) -> str:
    """Write out a study's page, which stands in a folder beside `readings`; what has not been run is left out."""
    folder = page.parent.parent
    quality, trials = tabulate_study(plan, study, cells)
    teacher = cells[Cell(study, TEACHER).name]["settings"]
    name = study.file_name
    return _join(
        f"# {study.name}",
        f"Written by `make results`: the tables from [`cells.csv`](../cells.csv), the text from [`{name}.md`]"
        f"(../readings/{name}.md), where it is edited. "
        "What the columns mean: [how it was measured](../notes/protocol.md).",
        f"Data: {plan.data[study.data]}.",
        f"Teacher: {study.backbone}, d {teacher['dim']}, lr {teacher['learning_rate']:g}, "
        f"wd {teacher['weight_decay']:g}, patience {teacher['patience']}.",
        _prose(folder, name),
        _figure(study, folder, page) if study in pictured(plan, cells) else "",
        render_markdown(quality),
        _say_blends(plan, study, cells),
        "<details><summary>The trials, first seed; the best by validation was taken</summary>",
        render_markdown(trials),
        "</details>",
    )


def tabulate_study(plan: Plan, study: Study, cells: Cells) -> tuple[Table, Table]:
    """Set a study's contestants side by side: mean ± sample standard deviation over seeds, and the trials behind it."""
    teacher = cells[Cell(study, TEACHER).name]
    rows = [_trained(TEACHER, [teacher], teacher)]
    trials: list[list[str]] = []
    for dim, names in study.contestants_by_dim.items():
        for name in study.untrained_at(dim):
            built = cells.get(Cell(study, name, dim).name)
            rows += [_untrained(name, built, teacher)] if built is not None else []
        for name in names:
            winner, found = winning_cells(study, name, dim, num_trials(plan, study, name), cells)
            if winner is not None:
                rows.append(_trained(name, found, teacher))
                trials += _trials(plan, study, name, dim, winner, cells)
    header, at = list(QUALITY_HEADER), QUALITY_HEADER.index(LISTS)
    if all(row[at] == MISSING for row in rows):
        for line in (header, *rows):
            del line[at]
    return Table("", header, rows), Table("", TRIALS_HEADER, trials, words=3)


def render_summary(plan: Plan, cells: Cells) -> str:
    """Write out what each contestant keeps of its teacher's test Recall@20, a row a study and dimension.

    Where there are several studies, two rows at the end give the mean over them at their first dimension, of test and
    of validation, for contestants that each study has. Empty where no study has its teacher.
    """
    rows: list[list[str]] = []
    means: list[Shares] = []
    for study in plan.studies:
        teacher = cells.get(Cell(study, TEACHER).name)
        if teacher is None:
            continue
        for dim in study.contestants_by_dim:
            kept = [kept_shares(rows_of(plan, study, name, dim, cells), teacher) for name in plan.summary]
            if any(map(len, kept)):
                columns = (study.name, str(teacher["settings"]["dim"]), f"{teacher[TEST]:.4f}", str(dim))
                rows.append([*columns, *(share_and_spread(shares[:, 0]) for shares in kept)])
            if dim == study.dim:
                means.append(np.array([shares.mean(axis=0) if len(shares) else (np.nan, np.nan) for shares in kept]))
    if len(means) > 1:
        for title, over_studies in zip(("all, test", "all, validation"), np.mean(means, axis=0).T, strict=True):
            rows.append([title, "", "", "", *(MISSING if np.isnan(mean) else f"{mean:.1%}" for mean in over_studies)])
    header = ("study", "d_t", "teacher's test Recall@20", "d", *plan.summary)
    return render_markdown(Table("", header, rows)) if rows else ""


def _trained(name: str, rows: Sequence[Row], teacher: Row) -> list[str]:
    int8 = [row[INT8] for row in rows if row[INT8] is not None]
    return [
        name,
        str(rows[0]["settings"]["dim"]),
        f"{rows[0]['bytes_per_item']:,.0f}",
        str(len(rows)),
        *(mean_and_spread([row[column] for row in rows]) for column in (VALIDATION, TEST)),
        MISSING if rows[0][BLEND_TEST] is None else f"{_mean(rows, BLEND_TEST):.4f}",
        mean_and_spread([row["test NDCG@20"] for row in rows]),
        f"{_mean(rows, TEST) / teacher[TEST]:.1%}",
        f"{np.mean(int8):.4f}" if int8 else MISSING,
        *(f"{_mean(rows, within(seconds)):.4f}" for seconds in EQUAL_TIMES),
        _within(rows, teacher["processor_seconds"] / 3),
        f"{_mean(rows, 'best_epoch'):.0f}",
        f"{_mean(rows, 'processor_seconds'):.0f}",
        f"{max(row['peak_memory_bytes'] for row in rows) / 2**20:.0f}",
    ]


def _within(rows: Sequence[Row], seconds: float) -> str:
    """What was reached in so many processor seconds, a blend's among them; unknown of longer ones without a curve."""
    reached = []
    for row in rows:
        left = seconds - (row[BLEND_SECONDS] or 0.0)
        if row["processor_seconds"] <= left:
            reached.append(row[VALIDATION])
        elif row["curve"]:
            reached.append(best_by(left, row["curve"]))
    return f"{np.mean(reached):.4f}" if len(reached) == len(rows) else MISSING


def _mean(rows: Sequence[Row], column: str) -> float:
    return float(np.mean([row[column] for row in rows]))


def _untrained(name: str, row: Row, teacher: Row) -> list[str]:
    per_item = row["bytes_per_item"]
    return [
        f"*{name}*",
        str(row["settings"].get("dim", MISSING)),
        MISSING if per_item is None else f"{per_item:,.0f}",
        MISSING,
        *(f"{row[column]:.4f}" for column in (VALIDATION, TEST)),
        MISSING,
        f"{row['test NDCG@20']:.4f}",
        f"{row[TEST] / teacher[TEST]:.1%}",
        *[MISSING] * (3 + len(EQUAL_TIMES)),
        f"{row['seconds']:.0f}",
        MISSING,
    ]


def _say_blends(plan: Plan, study: Study, cells: Cells) -> str:
    """Say once of every blend who learned from it, what it is made of and what its own lists are worth."""
    learners: dict[str, dict[str, list[str]]] = {}
    for dim, names in study.contestants_by_dim.items():
        for name in names:
            for row in rows_of(plan, study, name, dim, cells)[:1]:
                if row["blend"]:
                    quality = f"validation Recall@20 {row[BLEND_VALIDATION]:.4f}, test {row[BLEND_TEST]:.4f}"
                    quality += f"; {row[BLEND_SECONDS] or 0:.0f} processor s"
                    learners.setdefault(f"{row['blend']}: {quality}", {}).setdefault(name, []).append(str(dim))
    lines = [
        f"- {', '.join(_with_dims(name, dims) for name, dims in who.items())} from {blend}"
        for blend, who in learners.items()
    ]
    return "\n".join([BLENDS, *lines]) if lines else ""


def _with_dims(name: str, dims: Sequence[str]) -> str:
    return f"`{name}` (d {', '.join(dims)})"


def _trials(plan: Plan, study: Study, name: str, dim: int, winner: int, cells: Cells) -> list[list[str]]:
    rows = []
    for trial in range(num_trials(plan, study, name)):
        row = cells[Cell(study, name, dim, trial, study.seeds[0]).name]
        settings = plan.contestants[name].trials[trial]
        given = ", ".join(f"{key} {value}" for key, value in settings.items()) or "defaults"
        cost = f"{row['processor_seconds']:.0f}"
        rows.append(
            [name, str(dim), given, f"{row[VALIDATION]:.4f}", f"{row[TEST]:.4f}", cost, "✓" if trial == winner else ""]
        )
    return rows


def _prose(folder: Path, name: str) -> str:
    path = folder / "readings" / f"{name}.md"
    return path.read_text(encoding="utf-8").strip("\n") if path.is_file() else ""


def _relative(path: Path, page: Path) -> str:
    """How a page links a file."""
    return Path(os.path.relpath(path, page.parent)).as_posix()


def _join(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"
