"""`lowpass job`: run a job, go on with one, and look at its runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from jobs.commands.words import describe_progress, describe_run
from jobs.errors import UnknownJob
from jobs.estimate import last_times
from jobs.planning import Planner, look_ahead
from jobs.record.folder import RUNS, JobFolder
from jobs.record.state import HELD, STATE_FILE, RunState, read_state
from jobs.runner import run_job
from jobs.spec.reading import load_spec

SPEC = click.Path(path_type=Path, dir_okay=False)
ANY_PATH = click.Path(path_type=Path)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
EXIT_HELD = 3


@click.command()
@click.argument("spec", type=SPEC)
@click.option("--check", is_flag=True, help="Check the spec and say which steps would run; run nothing.")
@JSON
def run(spec: Path, *, check: bool, as_json: bool) -> int:
    """Run the job of SPEC: prepare, teacher, distill, export, gate, publish, label, metrics.

    What has been done of the same inputs and settings is not done again: a job that was cut off goes on where it
    stopped, and one of which nothing has changed does nothing. Exit codes: 0 published or nothing to do, 3 held by the
    gate, 2 the spec or its data are wrong, 1 a defect.

    Example: lowpass job run job.toml

    Example: lowpass job run job.toml --check
    """
    wanted = load_spec(spec)
    if check:
        steps = look_ahead(Planner(wanted, JobFolder(wanted.folder)))
        if as_json:
            click.echo(
                json.dumps({"spec": str(spec), "steps": [{"step": name, "would": says} for name, says in steps]})
            )
        else:
            click.echo("\n".join([f"{spec}: no fault", *(f"{name:8s} {says}" for name, says in steps)]))
        return 0
    return _report(run_job(wanted), as_json)


@click.command()
@click.argument("job", type=ANY_PATH)
@JSON
def resume(job: Path, *, as_json: bool) -> int:
    """Go on with the last run of JOB, a spec or a job's folder, where it was cut off or failed.

    The spec is read anew: what was mended in it counts.

    Example: lowpass job resume jobs/shop
    """
    spec = job if job.is_file() else Path(_latest(_find_job(job)).spec)
    return _report(run_job(load_spec(spec), must_resume=True), as_json)


@click.command()
@click.argument("job", type=ANY_PATH)
@JSON
def status(job: Path, *, as_json: bool) -> None:
    """Say where JOB stands: a spec, a job's folder, or a folder of jobs.

    Example: lowpass job status job.toml
    """
    folders = _find_jobs(job)
    found: list[dict[str, Any]] = []
    for folder in folders:
        state = _latest(folder)
        says = describe_progress(folder, state, last_times(folder.states()))
        found.append({"job": state.job, "is_running": folder.is_locked(), "says": says, "latest": state.to_dict()})
        if not as_json:
            click.echo(f"{describe_run(state) if len(folders) == 1 else _line(state)}\n{says}")
    if as_json:
        click.echo(json.dumps({"jobs": found}))


@click.command()
@click.argument("job", type=ANY_PATH)
@click.option("--run", "name", help="Name of a run.  [default: the latest]")
@JSON
def show(job: Path, *, name: str | None, as_json: bool) -> None:
    """Show a run of JOB: a spec, a job's folder, or the run's own folder.

    Example: lowpass job show job.toml --run 20261128T030000Z
    """
    if (job / STATE_FILE).is_file():
        state = read_state(job)
        folder = JobFolder(job.resolve().parent.parent)
    else:
        folder = _find_job(job)
        state = _latest(folder) if name is None else read_state(folder.run_folder(name))
    if as_json:
        click.echo(json.dumps(state.to_dict()))
        return
    others = ", ".join(run for run in folder.runs() if run != state.run) or "none"
    click.echo(f"{describe_run(state)}\n\nreport {folder.run_folder(state.run) / 'report.html'}\nother runs: {others}")


def _report(state: RunState, as_json: bool) -> int:
    click.echo(json.dumps(state.to_dict()) if as_json else describe_run(state))
    return EXIT_HELD if state.outcome == HELD else 0


def _line(state: RunState) -> str:
    version = f", {state.published['model']} version {state.published['version']}" if state.published else ""
    return f"{state.job}: {state.outcome}{version}, run {state.run}"


def _find_job(job: Path) -> JobFolder:
    folders = _find_jobs(job)
    if len(folders) > 1:
        names = ", ".join(folder.path.name for folder in folders)
        raise UnknownJob(f"{job}: holds several jobs ({names}); give the folder of one")
    return folders[0]


def _find_jobs(job: Path) -> list[JobFolder]:
    if job.is_file():
        return [JobFolder(load_spec(job).folder)]
    if (job / RUNS).is_dir():
        return [JobFolder(job)]
    folders = [JobFolder(path) for path in sorted(job.iterdir()) if (path / RUNS).is_dir()] if job.is_dir() else []
    if not folders:
        raise UnknownJob(f"{job}: no job there; give a spec, a job's folder, or a folder of jobs")
    return folders


def _latest(folder: JobFolder) -> RunState:
    state = folder.latest()
    if state is None:
        raise UnknownJob(f"{folder.path}: has not run yet; start it by 'lowpass job run SPEC'")
    return state
