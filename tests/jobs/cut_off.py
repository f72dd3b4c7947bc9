"""Run a job, ended by SIGKILL at each of some points, until it ends by itself: `cut_off SPEC POINT…`.

A point is STEP:OUTCOME, where the state says that a step has come so far ("teacher:running"), STEP@EPOCH, where a
checkpoint of a training is on disk, or "upload", where the first file of a bundle has come to the store. Each run is a
process of its own, forked before anything was computed, which stands still at its point; what is on disk tells when it
is there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distill.training.trainer
import jobs.runner
from export.bundle.s3.objects import Count, Objects
from jobs.errors import UnknownJob
from jobs.record.folder import JobFolder
from jobs.record.state import RunState, read_state
from jobs.spec.reading import load_spec
from jobs.spec.sections import JobSpec

WITHIN = 120.0
UPLOAD = "upload"
Reached = Callable[[], bool]


def main(spec_path: Path, points: list[str]) -> None:
    spec = load_spec(spec_path)
    for point in points:
        pid = os.fork()
        if not pid:
            _run(spec, point)
        _wait(_look_for(spec, point), pid, point)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL, status
        print(json.dumps({"cut": point, "state": _state(spec)}), flush=True)  # noqa: T201
    print(json.dumps({"state": jobs.runner.run_job(spec, shown=False).to_dict()}), flush=True)  # noqa: T201


def _run(spec: JobSpec, point: str) -> None:
    """Run the job and stand still at the point; this process never returns."""
    try:
        if point == UPLOAD:
            _stand_still_after_upload(spec)
        elif "@" in point:
            _stand_still_after_checkpoint(point)
        else:
            _stand_still_after_state(point)
        jobs.runner.run_job(spec, shown=False)
    finally:
        os._exit(1)  # before its point, or an error


def _stand_still_after_upload(spec: JobSpec) -> None:
    upload = Objects.upload

    def upload_and_stand_still(self: Objects, path: Path, key: str, count: Count) -> None:
        upload(self, path, key, count)
        (spec.folder / UPLOAD).touch()
        time.sleep(2 * WITHIN)

    Objects.upload = upload_and_stand_still  # type: ignore[method-assign]


def _stand_still_after_state(point: str) -> None:
    module: Any = jobs.runner
    write = module.write_state

    def write_and_stand_still(folder: Path, state: RunState) -> None:
        write(folder, state)
        name, _, outcome = point.partition(":")
        if state.step(name).outcome == outcome:
            time.sleep(2 * WITHIN)

    module.write_state = write_and_stand_still


def _stand_still_after_checkpoint(point: str) -> None:
    module: Any = distill.training.trainer
    module.CHECKPOINT_SECONDS = 0.0
    save = module.save_checkpoint

    def save_and_stand_still(directory: Path, *arguments: Any, **settings: Any) -> None:
        save(directory, *arguments, **settings)
        step, _, epoch = point.partition("@")
        if directory.name == {"teacher": "teacher", "distill": "student"}[step] and _epoch(directory) == int(epoch):
            time.sleep(2 * WITHIN)

    module.save_checkpoint = save_and_stand_still


def _look_for(spec: JobSpec, point: str) -> Reached:
    if point == UPLOAD:
        return (spec.folder / UPLOAD).exists
    if "@" in point:
        step, _, epoch = point.partition("@")
        return lambda: any(
            _epoch(path.parent) == int(epoch) for path in spec.folder.glob(f"steps/{step}-*/*/checkpoint.json")
        )
    name, _, outcome = point.partition(":")

    def reached() -> bool:
        state = _state(spec)
        return any(step["name"] == name and step["outcome"] == outcome for step in (state or {}).get("steps", ()))

    return reached


def _epoch(run: Path) -> int:
    return int(json.loads((run / "checkpoint.json").read_text())["progress"]["epoch"])


def _state(spec: JobSpec) -> dict[str, Any] | None:
    folder = JobFolder(spec.folder)
    try:
        return read_state(folder.run_folder(folder.runs()[0])).to_dict()
    except (IndexError, UnknownJob):
        return None


def _wait(reached: Reached, pid: int, point: str) -> None:
    give_up = time.monotonic() + WITHIN
    while not reached():
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), f"ended before {point}"
        assert time.monotonic() < give_up, f"never came to {point}"
        time.sleep(0.01)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
