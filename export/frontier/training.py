"""Training the students of a plan: one run each, never twice, several side by side."""

from __future__ import annotations

import io
import json
import multiprocessing
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from distill.data.interactions import Interactions, load_interactions
from distill.errors import RunError
from distill.run import CONFIG_FILE, METRICS_FILE, Run, open_run
from distill.training.checkpoint import STATE_FILE
from distill.training.child_process import end_with_parent
from distill.training.job import Job, describe, run_job


def train_students(
    jobs: Mapping[str, Job], data_path: Path, data: Interactions, teacher: Run, runs: Path, *, processes: int = 1
) -> list[Run]:
    """Train what is missing, go on with what was cut off, and open all.

    Args:
        jobs: Run name → what to train.
        data_path: The data directory, for other processes.
        data: The same, loaded.
        teacher: The teacher's run on it.
        runs: Where the run directories are.
        processes: How many train at a time.

    Returns:
        The finished runs, in the order of `jobs`.

    Raises:
        RunError: A finished run in `runs` has other settings.
        SettingError: As `run_job`.
    """
    for name, job in jobs.items():
        if (runs / name / METRICS_FILE).exists():
            _require_same_settings(runs / name, describe(job, data, teacher))
    missing = {name: job for name, job in jobs.items() if not (runs / name / METRICS_FILE).exists()}
    with tqdm(total=len(jobs), initial=len(jobs) - len(missing), desc="students", unit="run", disable=None) as bar:
        if processes == 1:
            for name, job in missing.items():
                bar.set_postfix_str(name)
                _train(job, data, teacher, runs / name)
                bar.update()
        else:
            _train_side_by_side(missing, data_path, teacher, runs, processes, bar)
    return [open_run(runs / name) for name in jobs]


def _require_same_settings(path: Path, wanted: Mapping[str, Any]) -> None:
    """Compare all settings but the teacher's path: its fingerprint says whether it is the same."""
    try:
        found = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: unreadable run ({error}); delete it to train it again") from error
    before, now = ({**config, "teacher": None} for config in (found, json.loads(json.dumps(wanted))))
    for name, was, is_now in _differences(before, now):
        raise RunError(
            f"{path / CONFIG_FILE}: '{name}' was {was!r} and is now {is_now!r}; "
            "give another --out, or delete the run to train it again"
        )


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted name of each setting that differs, and both values."""
    for key in sorted({*before, *now}):
        was, is_now = before.get(key), now.get(key)
        if isinstance(was, Mapping) and isinstance(is_now, Mapping):
            yield from ((f"{key}.{name}", *values) for name, *values in _differences(was, is_now))
        elif was != is_now:
            yield key, was, is_now


def _train(job: Job, data: Interactions, teacher: Run, out: Path) -> None:
    run_job(job, data, out, teacher=teacher, resume=(out / STATE_FILE).exists())


def _train_side_by_side(
    jobs: Mapping[str, Job], data_path: Path, teacher: Run, runs: Path, processes: int, bar: tqdm[Any]
) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1, initializer=_begin) as pool:
        waiting = {
            pool.submit(_train_in_child, job, data_path, teacher.path, runs / name): name for name, job in jobs.items()
        }
        try:
            for done in as_completed(waiting):
                done.result()
                bar.set_postfix_str(waiting[done])
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _begin() -> None:
    """Keep the bars of several trainings from writing over each other; errors travel as exceptions."""
    end_with_parent()
    sys.stderr = io.StringIO()


def _train_in_child(job: Job, data_path: Path, teacher: Path, out: Path) -> None:
    _train(job, load_interactions(data_path), open_run(teacher), out)
