"""The batch job: from a data directory and a teacher to the page on which a user decides.

The output directory holds `frontier.json`, `frontier.md`, `frontier.png` and `runs/`, a run directory a student. A
finished run there is never trained again, an unfinished one is gone on with.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from distill.data.interactions import Interactions, load_interactions
from distill.errors import RunError, SettingError
from distill.report.figures import draw_frontier, encode_png
from distill.run import Run, open_run
from distill.storage import write_file
from distill.training.runner import train_all
from export.frontier.choice import Limits, compare_candidates, explain, next_commands, recommend
from export.frontier.document import FIGURE_FILE, build_document, render_page
from export.frontier.large_data import suit
from export.frontier.measuring import Judge, measure_candidates
from export.frontier.plan import RESERVED, Plan
from export.frontier.reading import FILE, build_frontier

PAGE_FILE, RUNS_FOLDER = "frontier.md", "runs"


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        data: The data directory.
        teacher: The teacher's run on it.
        out: The output directory.
        plan: The candidates.
        limits: The budget.
        runs: Students trained elsewhere, to put beside.
        jobs: Students trained at a time.
        ann_recall: What an index must find of the exact top 20.
        seed: Of the draw of users who ask; the students' is in the plan.
        given: What of the plan somebody chose: `suit` leaves it alone.
    """

    data: Path
    teacher: Path
    out: Path
    plan: Plan
    limits: Limits
    runs: tuple[Path, ...] = ()
    jobs: int = 1
    ann_recall: float = 0.99
    seed: int = 0
    given: frozenset[str] = frozenset()


def run_frontier(request: Request) -> dict[str, Any]:
    """Train, measure, choose, and write the page.

    Returns:
        What `frontier.json` holds (see `export/frontier/document.py`).

    Raises:
        DistillError: The data, a run, a setting or the output directory is wrong.
        ExportError: Embeddings do not fit a precision.
    """
    if not 0 <= request.ann_recall <= 1:
        raise SettingError(f"ann_recall: {request.ann_recall} must be from 0 to 1")
    _require_ours(request.out)
    data = load_interactions(request.data)
    teacher = open_run(request.teacher, data)
    plan, left_out = suit(request.plan, request.given, data)
    request = replace(request, plan=plan)
    for note in left_out:
        tqdm.write(note, file=sys.stderr)
    request.plan.require_below(teacher.dim)
    judge = Judge(data, request.seed)
    jobs = request.plan.jobs(data)
    others = _open_others(request.runs, data, teacher, set(jobs))
    diverged: dict[str, str] = {}
    runs = request.out / RUNS_FOLDER
    students = train_all(jobs, request.data, runs, request.teacher, processes=request.jobs, diverged=diverged)
    dims = sorted({*request.plan.dims, *(run.dim for run in others)})
    candidates, notes = measure_candidates(
        replace(request.plan, dims=tuple(dims)),
        judge,
        teacher,
        [*students, *others],
        ann_recall=request.ann_recall,
    )
    rows = compare_candidates(candidates)
    found = recommend(rows, request.limits)
    document = build_document(
        _describe(request, data, teacher, rows[0].name),
        rows,
        request.limits,
        found,
        quality=judge.convention,
        reasons=explain(found, rows, request.limits),
        notes=left_out + notes + [f"{name} is left out: {reason}" for name, reason in diverged.items()],
        commands=next_commands(found, request.out),
    )
    write_file(request.out / FIGURE_FILE, encode_png(draw_frontier(build_frontier(document))))
    write_file(request.out / PAGE_FILE, render_page(document).encode())
    write_file(request.out / FILE, (json.dumps(document, indent=2) + "\n").encode())
    return document


def _require_ours(out: Path) -> None:
    ours = {FILE, PAGE_FILE, FIGURE_FILE, RUNS_FOLDER}
    strangers = sorted(path.name for path in out.iterdir() if path.name not in ours) if out.exists() else []
    if strangers:
        raise RunError(f"{out}: holds '{strangers[0]}', which is no part of a frontier; give another --out")


def _open_others(paths: tuple[Path, ...], data: Interactions, teacher: Run, taken: set[str]) -> list[Run]:
    others = []
    for path in paths:
        run = open_run(path, data)
        if run.dim >= teacher.dim:
            raise SettingError(f"run: {path} has dimension {run.dim}, must be below the teacher's {teacher.dim}")
        if path.name in taken or path.name in RESERVED:
            raise SettingError(f"run: '{path.name}' already names a candidate; rename the directory {path}")
        taken.add(path.name)
        others.append(run)
    return others


def _describe(request: Request, data: Interactions, teacher: Run, candidate: str) -> dict[str, Any]:
    plan = asdict(request.plan)
    return {
        "data": {
            "name": data.name, "path": str(request.data), "fingerprint": data.fingerprint, **data.counts,
        },
        "teacher": {
            "run": str(request.teacher), "backbone": teacher.config.get("backbone"), "dim": teacher.dim,
            "candidate": candidate,
        },
        "settings": {
            **plan, "runs": [str(path) for path in request.runs], "ann_recall": request.ann_recall,
            "seed": request.seed,
        },
    }  # fmt: skip
