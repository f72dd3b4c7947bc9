"""Reading a spec: TOML in, a `JobSpec` out, or every fault there is."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from distill.backbones import BACKBONES
from distill.data.prepare import SPLIT_METHODS, PrepareOptions
from distill.data.readers import READERS, ColumnNames
from distill.methods import METHODS, Method
from distill.settings import build_settings
from distill.training.job import RANDOM, STUDENT_SETTINGS, SVD, TRAINING_SETTINGS
from distill.training.sweep.plan import sweepable
from export.build.publish import ExportOptions
from export.bundle import ModelRepository
from jobs.errors import SpecError
from jobs.repository import open_place
from jobs.spec.faults import USERS, Faults
from jobs.spec.sections import (
    CONTINUE,
    CONTINUE_FROM,
    EXPORT_FIELDS,
    IMPORT,
    MODEL_FIELDS,
    OFF,
    STUDENT,
    STUDENT_DIM,
    TEACHER_DIM,
    DataSpec,
    GateSpec,
    ImportSpec,
    JobSpec,
    MetricsSpec,
    MlflowSpec,
    ModelSpec,
    PublishSpec,
)

SECTIONS = ("data", "teacher", "student", "export", "publish", "gate", "metrics", "mlflow")
TOP = ("name", "directory", "keep_runs")
DIRECTORY, KEEP_RUNS = "jobs", 7
SPLITS = ("auto", "ready", *SPLIT_METHODS)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_COLUMNS = {f"{field.name}_column": field.name for field in fields(ColumnNames) if field.name != "ids_as_written"}
_PREPARE = {field.name for field in fields(PrepareOptions)}
_BOUNDS = {field.name for field in fields(GateSpec)}
_DATA = ("source", "name", "format", "items")


def load_spec(path: Path) -> JobSpec:
    """Read and check a spec; nothing is run, and nothing is written.

    Args:
        path: The file; paths in it are relative to its folder.

    Raises:
        SpecError: It is unreadable, or something in it is wrong; every fault has a line.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read ({error}); give the path of a spec in TOML") from error
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path}: is not TOML ({error}); mend that line") from error
    faults = Faults(path)
    tables = _take_tables(content, faults)
    base = path.resolve().parent
    name, directory, keep_runs = _top(content, base, faults)
    data = _data(tables["data"], name, base, faults)
    teacher = _teacher(tables["teacher"], base, faults)
    student = _student(tables["student"], faults)
    export = _export(tables["export"], faults)
    publish = _publish(tables["publish"], name, base, faults)
    gate = _gate(tables["gate"], faults)
    metrics = _metrics(tables["metrics"], base, faults)
    mlflow = _mlflow(tables["mlflow"], faults) if "mlflow" in content else None
    faults.require_none()
    assert data and teacher and student and export and publish and gate and metrics  # noqa: S101, PT018 - else a fault
    return JobSpec(
        path.resolve(), name, directory, keep_runs, data, teacher, student, export, publish, gate, metrics, mlflow
    )


def _take_tables(content: Mapping[str, Any], faults: Faults) -> dict[str, dict[str, Any]]:
    for name in content:
        if name not in (*TOP, *SECTIONS):
            faults.add(name, f"no such setting; a spec has {', '.join((*TOP, *SECTIONS))}")
    tables: dict[str, dict[str, Any]] = {}
    for name in SECTIONS:
        table = content.get(name, {})
        if not isinstance(table, dict):
            faults.add(name, f"is a value, not a section; write [{name}] and its settings below it")
            table = {}
        tables[name] = dict(table)
    return tables


def _top(content: Mapping[str, Any], base: Path, faults: Faults) -> tuple[str, Path, int]:
    name, directory, keep_runs = (
        content.get(key, usual) for key, usual in (("name", ""), ("directory", DIRECTORY), ("keep_runs", KEEP_RUNS))
    )
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        faults.add("name", f"{name!r} is no name of a job; give letters, digits, '.', '_' and '-', at most 128")
        name = "job"
    if not isinstance(directory, str):
        faults.add("directory", f"{directory!r} is no path; give the folder where jobs keep their runs")
        directory = DIRECTORY
    elif (base / directory).exists() and not (base / directory).is_dir():
        faults.add("directory", f"{base / directory} is a file; give the folder where jobs keep their runs")
    if not isinstance(keep_runs, int) or isinstance(keep_runs, bool) or keep_runs < 1:
        faults.add("keep_runs", f"{keep_runs!r} is no number of runs; give 1 or more")
        keep_runs = KEEP_RUNS
    return name, base / directory, keep_runs


def _data(table: dict[str, Any], name: str, base: Path, faults: Faults) -> DataSpec | None:
    known = {*_DATA, *_PREPARE, *_COLUMNS, "ids_as_written"}
    for key in sorted(set(table) - known):
        faults.add(f"data.{key}", f"no such setting; it has {', '.join(sorted(known))}")
        del table[key]
    for key, names in (("split", SPLITS), ("format", tuple(READERS))):
        if key in table and table[key] not in names:
            faults.add(f"data.{key}", f"{table.pop(key)!r} is none; give one of {', '.join(names)}")
    columns = {field: table.pop(key) for key, field in _COLUMNS.items() if key in table}
    columns |= {key: table.pop(key) for key in ("ids_as_written",) if key in table}
    options = {key: table.pop(key) for key in _PREPARE & set(table)}
    built = faults.build(PrepareOptions, options, "data")
    named = faults.build(ColumnNames, columns, "data")
    if built is not None and (min(built.ratios) < 0 or built.ratios[0] < 1):
        faults.add("data.ratios", f"{list(built.ratios)}: give three whole numbers, the first at least 1: [8, 1, 1]")
    table = _absolute(table, ("source", "items"), base)
    for key in ("source", "items"):
        if isinstance(path := table.get(key), Path) and not path.exists():
            faults.add(f"data.{key}", f"{path}: no such file or folder; check the path")
    spec = faults.build(DataSpec, {"name": name, **table}, "data")
    if spec is None or built is None or named is None:
        return None
    if spec.is_prepared and (told := {*options, *columns, *({"format", "items"} & set(table))}):
        faults.add("data.source", f"is prepared already, so that {', '.join(sorted(told))} means nothing: leave it out")
    return replace(spec, options=built, columns=named)


def _teacher(table: dict[str, Any], base: Path, faults: Faults) -> ModelSpec | None:
    if "method" in table:
        faults.add("teacher.method", "a teacher learns from no teacher; leave it out, and give the student a method")
        table.pop("method")
    if IMPORT not in table:
        return _model("teacher", {"dim": TEACHER_DIM, **table}, {}, faults)
    given = table.pop(IMPORT)
    for name in table:
        faults.add(
            f"teacher.{name}", "means nothing beside [teacher.import]: nothing is trained; leave one of them out"
        )
    if not isinstance(given, dict):
        faults.add("teacher.import", "is a value; write [teacher.import] with users and items below it")
        return None
    paths = ("users", "items", "users_ids", "items_ids")
    imported = faults.build(ImportSpec, _absolute(given, paths, base), "teacher.import")
    for name, path in imported.files.items() if imported else ():
        if not path.is_file():
            faults.add(f"teacher.import.{name}", f"{path}: no such file; check the path")
    return None if imported is None else ModelSpec(imported=imported)


def _student(table: dict[str, Any], faults: Faults) -> ModelSpec | None:
    if IMPORT in table:
        faults.add("student.import", "a student is distilled, not imported; import the teacher")
        table.pop(IMPORT)
    method = table.get("method", STUDENT["method"])
    if isinstance(method, str) and not METHODS.get(method, Method).needs_teacher:
        faults.add("student.method", f"'{method}' learns from no teacher; see 'lowpass methods'")
        return None
    if (start := table.get("start", RANDOM)) not in {RANDOM, SVD}:
        faults.add("student.start", f"'{start}': give {RANDOM} or {SVD}, or {CONTINUE} = true for yesterday's run")
        table.pop("start")
    return _model("student", {"dim": STUDENT_DIM, **table}, STUDENT, faults)


def _model(section: str, table: dict[str, Any], usual: Mapping[str, Any], faults: Faults) -> ModelSpec | None:
    named = {key: table.pop(key) for key in MODEL_FIELDS & set(table)}
    if CONTINUE in named:
        named["continued"] = given = named.pop(CONTINUE)
        if not isinstance(given, bool):
            faults.add(f"{section}.{CONTINUE}", f"{given!r} is neither true nor false")
            return None
    spec = faults.build(ModelSpec, {**usual, **named}, section)
    if spec is None:
        return None
    if spec.continued and spec.backbone in BACKBONES and not BACKBONES[spec.backbone].is_table:
        tables = ", ".join(name for name, kind in BACKBONES.items() if kind.is_table)
        faults.add(
            f"{section}.{CONTINUE}",
            f"'{spec.backbone}' makes its embeddings of a table, and a run keeps the embeddings alone; leave it out, "
            f"or take a backbone that can go on: {tables}",
        )
    known = _known_settings(section, spec.method, faults)
    if known is None:
        return None
    settings = _flatten(table)
    for name in [name for name in settings if name not in known]:
        faults.add(f"{section}.{name}", f"no such setting; it has {', '.join(known)}")
        del settings[name]
    if faults.attempt(section, settings, lambda given: replace(spec, settings=dict(given)).build()) is None:
        return None
    return replace(spec, settings=settings)


def _known_settings(section: str, method: str, faults: Faults) -> dict[str, str] | None:
    """Names of all flat settings; a job writes no events for TensorBoard."""
    student = STUDENT_SETTINGS if method != "scratch" else {"dim": STUDENT_SETTINGS["dim"]}
    try:
        known = {**student, **sweepable(method), **TRAINING_SETTINGS}
    except USERS as error:
        faults.add(f"{section}.method", str(error).removeprefix("method: "))
        return None
    return {name: kind for name, kind in known.items() if name not in {"tensorboard", CONTINUE_FROM}}


def _flatten(table: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of one part of a composition are a table of its name, or "part.name"."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= {f"{name}.{key}": own for key, own in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def _export(table: dict[str, Any], faults: Faults) -> ExportOptions | None:
    for name in sorted(set(table) - EXPORT_FIELDS):
        faults.add(f"export.{name}", f"no such setting; it has {', '.join(sorted(EXPORT_FIELDS))}")
    known = {name: value for name, value in table.items() if name in EXPORT_FIELDS}
    return faults.attempt("export", known, lambda given: build_settings(ExportOptions, given, "export"))


def _publish(table: dict[str, Any], name: str, base: Path, faults: Faults) -> PublishSpec | None:
    if isinstance(table.get("repository"), str) and "://" not in table["repository"]:
        table["repository"] = str(base / table["repository"])
    spec = faults.build(PublishSpec, table, "publish")
    if spec is None:
        return None
    anywhere = ModelRepository(base)
    checks: dict[str, Callable[[], object]] = {
        "repository": lambda: open_place(spec.repository, base),
        "model": lambda: anywhere.next_version(spec.model or name),
        "label": lambda: anywhere.reserve(name, label=spec.label),
    }
    for field, check in checks.items():
        try:
            check()
        except USERS as error:
            faults.add(f"publish.{field}", str(error))
    return spec


def _gate(table: dict[str, Any], faults: Faults) -> GateSpec | None:
    for name, value in list(table.items()):
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in _BOUNDS and value != OFF and not (is_number and math.isfinite(value) and value >= 0):
            faults.add(f"gate.{name}", f"{value!r} is no bound; give a number, 0 or more, or '{OFF}'")
            del table[name]
    return faults.build(GateSpec, table, "gate")


def _metrics(table: dict[str, Any], base: Path, faults: Faults) -> MetricsSpec | None:
    spec = faults.build(MetricsSpec, _absolute(table, ("textfile",), base), "metrics")
    if spec is None:
        return None
    if spec.textfile is not None:
        if spec.textfile.suffix != ".prom":
            faults.add("metrics.textfile", f"{spec.textfile}: the textfile collector reads names that end in .prom")
        if not spec.textfile.parent.is_dir():
            faults.add("metrics.textfile", f"{spec.textfile.parent}: no such folder; give the collector's")
    if spec.pushgateway is not None:
        _require_url("metrics.pushgateway", spec.pushgateway, faults)
    return spec


def _mlflow(table: dict[str, Any], faults: Faults) -> MlflowSpec | None:
    spec = faults.build(MlflowSpec, table, "mlflow")
    if spec is not None:
        _require_url("mlflow.uri", spec.uri, faults)
    return spec


def _require_url(place: str, url: str, faults: Faults) -> None:
    parts = urlsplit(url)
    if parts.username or parts.password:
        faults.add(place, "holds a user or a password, which would be shown; leave it out of the URL")
    elif parts.scheme not in {"http", "https"} or not parts.hostname:
        faults.add(place, f"'{url}' is no address; give http://HOST:PORT")


def _absolute(table: Mapping[str, Any], names: tuple[str, ...], base: Path) -> dict[str, Any]:
    return {name: base / value if name in names and isinstance(value, str) else value for name, value in table.items()}
