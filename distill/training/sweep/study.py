"""The sweep itself: which settings come next (Optuna), what became of them, and going on where it was cut off.

The directory of a sweep holds

- `journal.log`: every trial with its sampled values and its result, written by Optuna as it happens;
- `trials/NNN/`: a run directory a trial, which every other command reads;
- `sweep.json`: the summary, written anew as trials end; `sweep.png`: its figure, at the end.

This process alone draws settings and writes the journal, and a lock keeps a second sweep out of the directory. So
a trial that the journal calls running when a sweep starts is one that was cut off: it is taken up again.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from tqdm import tqdm

from distill.errors import RunError, SettingError
from distill.run import METRICS_FILE
from distill.storage import write_file
from distill.training.runner import Children, Outcome, Training
from distill.training.sweep.plan import Axis, Choice, Plan, Value, grid_points

OBJECTIVE = "Recall@20"
"""Of the validation report, mean over users with relevant items."""
JOURNAL_FILE = "journal.log"
TRIALS = "trials"
MAX_FAILURES = 3
"""A sweep whose first trials all fail has a fault that more trials will not cure."""
ERROR_FILE = "error.txt"
MAX_GRID = 1_000
ENDED = (TrialState.COMPLETE, TrialState.FAIL)


@dataclass(frozen=True)
class Budget:
    """How much is tried.

    Attributes:
        trials: Most trials in all, those of earlier sittings and failed ones included.
        jobs: Processes at once, one thread each.
        grid_points: Values tried of each range in an exhaustive sweep; None lets Optuna's TPE choose settings.
    """

    trials: int = 30
    jobs: int = 1
    grid_points: int | None = None


@contextmanager
def open_study(plan: Plan, fingerprints: Mapping[str, Any], out: Path, grid_points: int | None) -> Iterator[Study]:
    """Open a directory's study, or make it, and keep others out while it is open.

    Args:
        plan: What is swept.
        fingerprints: Of data and teacher: a sweep goes on only where they are the same.
        out: The sweep's directory.
        grid_points: As in `Budget`.

    Raises:
        RunError: Another sweep writes there, or the directory holds a sweep with other settings.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{out}: another sweep is writing there; wait for it, or give another --out") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        storage = JournalStorage(JournalFileBackend(str(out / JOURNAL_FILE)))
        study = optuna.create_study(storage=storage, study_name="sweep", direction="maximize", load_if_exists=True)
        study.sampler = optuna.samplers.TPESampler(seed=plan.seed + len(study.trials))
        _require_same(study, {**plan.describe(), **fingerprints, "grid_points": grid_points}, out)
        if grid_points is not None:
            _enqueue_grid(study, plan.axes, grid_points)
        yield study


def run_sweep(
    study: Study, plan: Plan, out: Path, budget: Budget, *, ended: Callable[[], object], progress: bool = False
) -> None:
    """Run trials until the budget is spent.

    Args:
        study: From `open_study`.
        plan: The same.
        out: The sweep's directory.
        budget: How much is tried.
        ended: Called after each trial that ended.
        progress: Show a bar where somebody looks.

    Raises:
        SettingError: The first trials all failed.
    """
    total = min(budget.trials, len(study.trials)) if budget.grid_points else budget.trials
    waiting = deque(_take_up_cut_off(study, plan))
    killed: set[int] = set()
    ended_before = len(study.get_trials(deepcopy=False, states=ENDED))
    bar = tqdm(total=total, initial=ended_before, desc="sweeping", unit="trial", disable=None if progress else True)
    with Children[int](budget.jobs) as children, bar:
        while True:
            while not children.full and (waiting or _count_started(study) < total):
                number = waiting.popleft() if waiting else _draw(study, plan)
                children.start(number, _training(study.trials[number], plan, out))
            if not children.busy:
                break
            for outcome in children.wait():
                if outcome.status == "killed" and outcome.key not in killed:
                    killed.add(outcome.key)
                    waiting.append(outcome.key)
                    continue
                _record(study, out, outcome)
                bar.update()
                bar.set_postfix(best=_best(study))
                ended()
            _require_success(study, out, MAX_FAILURES)
    _require_success(study, out, 1)


def sampled_values(axes: tuple[Axis, ...], trial: FrozenTrial) -> dict[str, Value]:
    """The values of a trial as they were trained."""
    return {
        axis.name: trial.params[axis.name] if isinstance(axis, Choice) else axis.shown(trial.params[axis.name])
        for axis in axes
    }


def run_path(out: Path, number: int) -> Path:
    """The run directory of a trial."""
    return out / TRIALS / f"{number:03d}"


def read_metrics(out: Path, number: int) -> dict[str, Any]:
    """What `metrics.json` of a finished trial holds."""
    metrics: dict[str, Any] = json.loads((run_path(out, number) / METRICS_FILE).read_text(encoding="utf-8"))
    return metrics


def read_error(out: Path, number: int) -> str:
    """Why a trial failed, in one line."""
    path = run_path(out, number) / ERROR_FILE
    lines = path.read_text(encoding="utf-8").strip().splitlines() if path.is_file() else []
    return lines[-1] if lines else "cut off before it had settings"


def _draw(study: Study, plan: Plan) -> int:
    """The number of the next trial: from the grid where one is queued, else from the sampler."""
    return study.ask({axis.name: _distribution(axis) for axis in plan.axes}).number


def _training(trial: FrozenTrial, plan: Plan, out: Path) -> Training:
    job = plan.build_job(sampled_values(plan.axes, trial))
    return Training(job, plan.data, run_path(out, trial.number), plan.teacher)


def _distribution(axis: Axis) -> BaseDistribution:
    if isinstance(axis, Choice):
        return CategoricalDistribution(axis.values)
    if axis.integer:
        return IntDistribution(round(axis.low), round(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _enqueue_grid(study: Study, axes: tuple[Axis, ...], points: int) -> None:
    size = math.prod(len(grid_points(axis, points)) for axis in axes)
    if size > MAX_GRID:
        raise SettingError(f"grid: {size} combinations are more than {MAX_GRID}; give fewer --points, or no --grid")
    combinations = itertools.product(*(grid_points(axis, points) for axis in axes))
    for values in itertools.islice(combinations, len(study.trials), None):
        study.enqueue_trial(dict(zip((axis.name for axis in axes), values, strict=True)))


def _take_up_cut_off(study: Study, plan: Plan) -> list[int]:
    """Numbers of the trials that were running when an earlier sitting ended."""
    taken = []
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if {axis.name for axis in plan.axes} <= set(trial.params):
            taken.append(trial.number)
        else:
            study.tell(trial.number, state=TrialState.FAIL)
    return taken


def _count_started(study: Study) -> int:
    return sum(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False))


def _best(study: Study) -> str:
    values = [trial.value for trial in study.get_trials(deepcopy=False) if trial.value is not None]
    return f"{max(values):.4f}" if values else "–"


def _record(study: Study, out: Path, outcome: Outcome[int]) -> None:
    if outcome.status != "done":
        write_file(run_path(out, outcome.key) / ERROR_FILE, outcome.error.encode())
        study.tell(outcome.key, state=TrialState.FAIL)
        return
    study.tell(outcome.key, read_metrics(out, outcome.key)["validation"][OBJECTIVE])


def _require_success(study: Study, out: Path, failures: int) -> None:
    failed = study.get_trials(deepcopy=False, states=(TrialState.FAIL,))
    if len(failed) >= failures and not study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        number = failed[0].number
        raise SettingError(
            f"{run_path(out, number)}: every trial has failed, this one because: {read_error(out, number)}; "
            "cure it and give another --out"
        )


def _require_same(study: Study, settings: Mapping[str, Any], out: Path) -> None:
    known = study.user_attrs.get("settings")
    if known is None:
        study.set_user_attr("settings", settings)
        return
    other = [name for name, value in json.loads(json.dumps(settings)).items() if known.get(name) != value]
    if other:
        raise RunError(
            f"{out}: holds a sweep with another {', '.join(other)}; repeat its settings, or give another --out"
        )


CONVENTION = "validation, mean over users with relevant items"


def summarize(study: Study, plan: Plan, out: Path, data_name: str) -> dict[str, Any]:
    """Everything a sweep knows so far, ready for JSON.

    Returns:
        "data", "objective", what `Plan.describe` says, "trials" in order, "best" (a trial) and the "command" that
        trains it, both None where no trial has finished.
    """
    trials = [_describe(trial, plan, out) for trial in study.get_trials(deepcopy=False, states=ENDED)]
    finished = [trial for trial in trials if trial["value"] is not None]
    best = max(finished, key=lambda trial: trial["value"], default=None)
    measured = {} if best is None else read_metrics(out, best["number"])["validation"]
    convention = measured["convention"] if "standard_error" in measured else CONVENTION
    return {
        "data": data_name,
        "objective": f"{OBJECTIVE} ({convention})",
        **plan.describe(),
        "trials": trials,
        "best": best,
        "command": None if best is None else plan.command(best["settings"], out / "best"),
    }


def _describe(trial: FrozenTrial, plan: Plan, out: Path) -> dict[str, Any]:
    complete = trial.state == TrialState.COMPLETE
    training = read_metrics(out, trial.number)["training"] if complete else {}
    known = {axis.name for axis in plan.axes} <= set(trial.params)
    return {
        "number": trial.number,
        "run": str(run_path(out, trial.number)),
        "settings": sampled_values(plan.axes, trial) if known else None,
        "value": trial.value if complete else None,
        "best_epoch": training.get("best_epoch"),
        "seconds": training.get("seconds"),
        "error": None if complete else read_error(out, trial.number),
    }
