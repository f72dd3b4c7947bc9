"""The table of cells, `cells.csv`: a row a training or a model that is not trained, added when its numbers are there.

`study`, `contestant`, `dim`, `trial` and `seed` name a row; its other columns, empty where they mean nothing:

| column | holds |
|---|---|
| `settings` | JSON: method, backbone, dimension and what an optimiser is given, else only what is not the default |
| `data`, `teacher` | the first 12 digits of the fingerprints of the data and of the teacher's embeddings |
| `bytes_per_item`, `bytes_per_user` | as ranked: of a training float32 |
| `validation Recall@20`, … | full ranking, train items masked, mean over all users |
| `blend`, `blend validation Recall@20`, … | what the co-teachers were, and the quality of the lists that taught |
| `blend processor_seconds` | to fit the co-teachers, choose among them and make the lists; once for all students |
| `int8 test Recall@20` | the same with the training's items in a byte a number |
| `validation Recall@20 in 10 s`, … | the best that a training reached in its first processor seconds |
| `curve` | JSON: processor seconds and the best validation Recall@20 so far, at times that grow by half or more |
| `best_epoch`, `epochs` | the epoch that was kept, and how many there were |
| `seconds`, `processor_seconds`, `peak_memory_bytes` | cost of training, evaluation left out of the times |
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from distill.data.interactions import Interactions
from distill.errors import DataError, SettingError
from distill.methods.co_teachers import NONE, describe_blend
from distill.run import HISTORY_FILE, Run
from distill.storage import alone_in, write_file
from distill.training.job import Job, build_job, describe
from results.plan import Plan, Study
from results.untrained import Built

TEACHER = "teacher"
TEST, VALIDATION = "test Recall@20", "validation Recall@20"
"""What is reported, and by what trials are chosen."""
INT8 = f"int8 {TEST}"
BLEND_VALIDATION, BLEND_TEST, BLEND_SECONDS = f"blend {VALIDATION}", f"blend {TEST}", "blend processor_seconds"
EQUAL_TIMES = (10, 30, 100)
"""Processor seconds after which trainings are compared."""
LATER = 1.5
"""Factor between the times of a curve's points."""
METRICS = ("Recall@10", "NDCG@10", "Recall@20", "NDCG@20")
SPLITS = ("validation", "test")
SHOWN_SETTINGS = {"method", "backbone", "dim", "learning_rate", "weight_decay", "patience", "co_teachers"}
"""Kept although they may be the default: tables show them, whatever the default becomes."""
NO_SETTINGS = {"format", "seed", "data", "teacher", "teacher_fingerprint"}
NOT_RECORDED = ("seed", "device", "threads", "tensorboard", "keep_checkpoints")
"""Training options that change no result, and the seed, which has a column."""
DIGITS = 12

Row = Mapping[str, Any]
Cells = Mapping[str, Row]
"""Name of the cell → its row, by column."""


def within(seconds: int) -> str:
    """Name the column of the best validation Recall@20 in a training's first processor seconds."""
    return f"{VALIDATION} in {seconds} s"


KEY: Mapping[str, Callable[[str], Any]] = {"study": str, "contestant": str, "dim": int, "trial": int, "seed": int}
COLUMNS: Mapping[str, Callable[[str], Any]] = {
    **KEY,
    "settings": json.loads,
    "data": str,
    "teacher": str,
    "bytes_per_item": float,
    "bytes_per_user": float,
    **{f"{split} {metric}": float for split in SPLITS for metric in METRICS},
    "blend": str,
    BLEND_VALIDATION: float,
    BLEND_TEST: float,
    BLEND_SECONDS: float,
    INT8: float,
    **{within(seconds): float for seconds in EQUAL_TIMES},
    "curve": json.loads,
    "best_epoch": int,
    "epochs": int,
    "seconds": float,
    "processor_seconds": float,
    "peak_memory_bytes": int,
}
"""Column → what makes a value of its text."""


@dataclass(frozen=True)
class Cell:
    """What one row is about.

    Attributes:
        study: Its table.
        contestant: A trained contestant, an untrained model, or the teacher.
        dim: d_s of the student, or of the students that an untrained model is compared with; None for the teacher.
        trial: Number of the trial; None where nothing is trained.
        seed: None where nothing is trained.
    """

    study: Study
    contestant: str
    dim: int | None = None
    trial: int | None = None
    seed: int | None = None

    @property
    def key(self) -> dict[str, Any]:
        """What names its row."""
        values = (self.study.name, self.contestant, self.dim, self.trial, self.seed)
        return dict(zip(KEY, values, strict=True))

    @property
    def name(self) -> str:
        """What a pattern picks it by, as in "ml-1m/bprmf/ce-d20-t1-s0"; its run directory below a folder of runs."""
        return name_of(self.key)


def name_of(row: Row) -> str:
    """Name a row as `Cell.name` does."""
    parts = [f"{letter}{row[column]}" for column, letter in (("dim", "d"), ("trial", "t"), ("seed", "s"))
             if row[column] is not None]  # fmt: skip
    return f"{row['study']}/{'-'.join([row['contestant'], *parts])}"


def read_cells(path: Path) -> dict[str, Row]:
    """Read the table; it is empty where there is no file yet.

    Raises:
        DataError: A column is unknown or missing, a value has the wrong type, or a cell is there twice.
    """
    if not path.is_file():
        return {}
    cells: dict[str, Row] = {}
    with path.open(newline="", encoding="utf-8") as stream:
        lines = csv.reader(stream)
        header = next(lines, [])
        for column in header:
            if column not in COLUMNS:
                raise DataError(f"{path}:1: unknown column '{column}'; the columns are {', '.join(COLUMNS)}")
        for column in COLUMNS:
            if header.count(column) != 1:
                raise DataError(f"{path}:1: column '{column}' is there {header.count(column)} times, not once")
        for texts in lines:
            place = f"{path}:{lines.line_num}"
            row = _parse_row(place, header, texts)
            if cells.setdefault(name_of(row), row) is not row:
                raise DataError(f"{place}: {name_of(row)} is there already; delete one of the two rows")
    return cells


def _parse_row(place: str, header: list[str], texts: list[str]) -> Row:
    if len(texts) != len(header):
        raise DataError(f"{place}: {len(texts)} values for {len(header)} columns; write one for each")
    row = {}
    for column, text in zip(header, texts, strict=True):
        try:
            row[column] = COLUMNS[column](text) if text else None
        except ValueError as error:
            raise DataError(f"{place}: column '{column}': '{text}' cannot be read ({error})") from error
    return row


def write_cells(path: Path, cells: Cells) -> None:
    """Write the table whole, in an order of its own, so that a new row changes one line of it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in sorted(cells.values(), key=_rank):
        writer.writerow([_format(row.get(column)) for column in COLUMNS])
    write_file(path, text.getvalue().encode())


def _rank(row: Row) -> tuple[Any, ...]:
    return tuple(row[column] if make is str else -1 if row[column] is None else row[column]
                 for column, make in KEY.items())  # fmt: skip


def _format(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value, separators=(",", ":")) if isinstance(value, dict | list) else str(value)


def add_cell(path: Path, cell: Cell, values: Row) -> None:
    """Add a finished cell to the table; a row that is there stays, unless its settings were others.

    The file is replaced whole, one process after the other: who is cut off leaves the rows that were there, and of two
    that finish at a time both rows are kept.

    Args:
        path: The table.
        cell: What is added.
        values: From `describe_run` or `describe_built`.
    """
    with alone_in(path.parent):
        cells = read_cells(path)
        if cells.get(cell.name, {}).get("settings") != values["settings"]:
            write_cells(path, {**cells, cell.name: {**values, **cell.key}})


def describe_run(run: Run, data: Interactions, int8: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Make the columns of a finished run.

    Args:
        run: As trained.
        data: On what.
        int8: Reports of its own items in a byte a number; None where nobody asks, as of the teacher.
    """
    training = run.metrics["training"]
    teacher = run.config["teacher_fingerprint"]
    return {
        "settings": settings_of(run.config, data),
        "data": data.fingerprint[:DIGITS],
        "teacher": None if teacher is None else teacher[:DIGITS],
        "bytes_per_item": 4.0 * run.dim,
        "bytes_per_user": 4.0 * run.dim,
        **quality_of(run.metrics),
        **_blend_of(run.metrics.get("blend")),
        INT8: None if int8 is None else quality_of(int8)[TEST],
        **_progress(run.path / HISTORY_FILE),
        **{name: training[name] for name in ("best_epoch", "epochs", "seconds", "processor_seconds")},
        "peak_memory_bytes": training["peak_memory_bytes"],
    }


def _blend_of(blend: Mapping[str, Any] | None) -> dict[str, Any]:
    if blend is None:
        return {}
    quality = quality_of(blend)
    return {
        "blend": describe_blend(blend["weights"]),
        BLEND_VALIDATION: quality[VALIDATION],
        BLEND_TEST: quality[TEST],
        BLEND_SECONDS: blend["processor_seconds"],
    }


def describe_built(built: Built, data: Interactions) -> dict[str, Any]:
    """Make the columns of a model that is not trained."""
    return {
        "settings": dict(built.settings),
        "data": data.fingerprint[:DIGITS],
        "bytes_per_item": built.bytes_per_item,
        "bytes_per_user": built.bytes_per_user,
        **quality_of(built.metrics),
        "seconds": built.seconds,
    }


def quality_of(reports: Mapping[str, Any]) -> dict[str, float]:
    """Take from reports, as in a run's `metrics.json`, the means over all users."""
    return {f"{split} {metric}": reports[f"{split}_all_users"][metric] for split in SPLITS for metric in METRICS}


def settings_of(config: Mapping[str, Any], data: Interactions) -> dict[str, Any]:
    """Take from a run's `config.json` what a reader must know to train it again, flat, as `build_job` is given it."""
    usual = _flatten(describe(build_job(config["method"], {}, backbone=config["backbone"]), data, None))
    return {
        name: value
        for name, value in _flatten(config).items()
        if name in SHOWN_SETTINGS or name not in usual or value != usual[name]
    }


def job_of(plan: Plan, cell: Cell) -> Job:
    """What is trained for a cell: the plan's options, the study's over them, the trial's over both."""
    if cell.contestant == TEACHER:
        study = cell.study
        return build_job("scratch", study.teacher, backbone=study.backbone, backbone_settings=study.teacher_settings)
    contestant = plan.contestants[cell.contestant]
    given = {**plan.training, **cell.study.training, **contestant.trials[cell.trial or 0]}
    given |= {"dim": cell.dim, "start": contestant.start, "seed": cell.seed, "co_teachers": contestant.co_teachers}
    return build_job(contestant.method, given, backbone=contestant.backbone or cell.study.backbone)


def is_run_of(row: Row, job: Job) -> bool:
    """Say whether the row of a training stands for a job: whether its recorded settings are the job's.

    What a row omits is the default; one from before there were co-teachers has none. A limit on time that the training
    did not reach, recorded or asked for, changes nothing.
    """
    given = {"co_teachers": NONE, **row["settings"]}
    method, backbone = given.pop("method"), given.pop("backbone")
    of_backbone = [name for name in given if name.startswith("backbone.")]
    own = {name.removeprefix("backbone."): given.pop(name) for name in of_backbone}
    limits = (given.get("max_seconds"), job.options.max_seconds)
    if all(limit is None or row["seconds"] < limit for limit in limits):
        given["max_seconds"] = job.options.max_seconds
    given |= {name: getattr(job.options, name) for name in NOT_RECORDED}
    try:
        return build_job(method, given, backbone=backbone, backbone_settings=own) == job
    except SettingError:
        return False


def _flatten(config: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in config.items() if not isinstance(value, dict) and name not in NO_SETTINGS}
    flat |= {f"backbone.{name}": value for name, value in config["backbone_settings"].items()} | config["training"]
    for name, value in config["method_settings"].items():
        flat |= {f"{name}.{inner}": own for inner, own in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _progress(history: Path) -> dict[str, Any]:
    """Read from a run's `history.csv` the best validation Recall@20 at equal times, 0 before the first, and a curve."""
    with history.open(newline="", encoding="utf-8") as stream:
        points = [(float(row["processor_seconds"]), float(row["Recall@20"])) for row in csv.DictReader(stream)]
    best = list(accumulate((recall for _, recall in points), max))
    reached = {within(seconds): best_by(seconds, points) for seconds in EQUAL_TIMES}
    return {**reached, "curve": _thin([(at, recall) for (at, _), recall in zip(points, best, strict=True)])}


def best_by(seconds: float, points: Iterable[Sequence[float]]) -> float:
    """The best of (time, recall) points that were there within so many seconds; 0 where none was."""
    return max((recall for at, recall in points if at <= seconds), default=0.0)


def _thin(curve: list[tuple[float, float]]) -> list[list[float]]:
    """Keep the first and last points of a curve, and of the others those that are half as late again as the last."""
    kept = curve[:1]
    for point in curve[1:]:
        if point[0] >= LATER * kept[-1][0]:
            kept.append(point)
    return [[round(at, 1), round(recall, 5)] for at, recall in dict.fromkeys([*kept, curve[-1]])]


def winning_cells(
    study: Study, contestant: str, dim: int, num_trials: int, cells: Cells
) -> tuple[int | None, list[Row]]:
    """Find the winning trial, and its row under each seed that has been run."""
    winner = winning_trial(study, contestant, dim, num_trials, cells)
    if winner is None:
        return None, []
    found = (cells.get(Cell(study, contestant, dim, winner, seed).name) for seed in study.seeds)
    return winner, [row for row in found if row is not None]


def winning_trial(study: Study, contestant: str, dim: int, num_trials: int, cells: Cells) -> int | None:
    """Find the trial with the best validation Recall@20 under the first seed; None before all are there."""
    names = [Cell(study, contestant, dim, trial, study.seeds[0]).name for trial in range(num_trials)]
    if any(name not in cells for name in names):
        return None
    return max(range(num_trials), key=lambda trial: float(cells[names[trial]][VALIDATION]))
