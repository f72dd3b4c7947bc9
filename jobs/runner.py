"""A run of a job: step after step, each kept, so that whatever ends it, the next run goes on where it stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

from distill.data.interactions import load_interactions
from distill.run import open_run
from export.bundle import STABLE, UnknownModel, open_manifest
from jobs.errors import NothingToResume
from jobs.estimate import last_times, say_estimate, say_seconds
from jobs.gate.checks import Candidate, judge
from jobs.gate.keeping import Passed, find_passed, keep_passed
from jobs.planning import Planner
from jobs.record.folder import JobFolder, step_folder
from jobs.record.log import RunLog
from jobs.record.state import (
    DONE,
    FAILED,
    HELD,
    NOTHING,
    PUBLISHED,
    RUNNING,
    SKIPPED,
    STEPS,
    WAITING,
    RunState,
    StepState,
    now,
    write_state,
)
from jobs.report import write_report
from jobs.sinks.metrics import push, write_textfile
from jobs.sinks.mlflow import record_run
from jobs.spec.sections import JobSpec
from jobs.steps.keys import digest
from jobs.steps.publishing import find_labelled, find_version
from jobs.steps.results import Result
from jobs.steps.work import Work


def run_job(spec: JobSpec, *, shown: bool = True, must_resume: bool = False) -> RunState:
    """Run a job, or go on with its last run where that one was cut off.

    Args:
        spec: What to do.
        shown: Whether to tell on stderr what happens.
        must_resume: Whether there must be a run to go on with: one that was cut off, or that failed.

    Returns:
        How it ended: published, held or nothing to do.

    Raises:
        JobLocked: The job is running already.
        NothingToResume: There is no such run.
        Exception: Whatever a step failed with; the state says so too, and the metrics are sent.
    """
    folder = JobFolder(spec.folder)
    with folder.locked(), _stopping():
        _close(folder)
        last = _find_unfinished(folder, spec, must_resume=must_resume)
        if last is None:
            state = RunState(spec.name, folder.new_run().name, str(spec.path), now())
        else:
            steps = [StepState(name) for name in STEPS]
            state = replace(last, outcome=RUNNING, ended=None, steps=steps, error=None, warnings=[])
        return _Run(spec, folder, state, before=last, shown=shown).to_end()


def _close(folder: JobFolder) -> None:
    """Give the last run its page where it was cut off after its end; this run's metrics tell what it did not."""
    last = folder.latest()
    if last is None or last.outcome == RUNNING or last.step("metrics").outcome != RUNNING:
        return
    step, path = last.step("metrics"), folder.run_folder(last.run)
    step.outcome, step.says = FAILED, "cut off"
    write_state(path, last)
    write_report(path, last, [])


def _find_unfinished(folder: JobFolder, spec: JobSpec, *, must_resume: bool) -> RunState | None:
    """The last run, where it was cut off; with `must_resume` also where it failed."""
    last = folder.latest()
    ends = {RUNNING, FAILED} if must_resume else {RUNNING}
    if last is not None and last.outcome in ends:
        return last
    if must_resume:
        said = "has not run yet" if last is None else f"ended: {last.outcome}"
        raise NothingToResume(f"{folder.path}: the last run {said}; start one by 'lowpass job run {spec.path}'")
    return None


@contextmanager
def _stopping() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does: the state is written, and the next run goes on."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Run:
    """A run on its way to its end."""

    def __init__(
        self, spec: JobSpec, folder: JobFolder, state: RunState, *, before: RunState | None, shown: bool
    ) -> None:
        self.spec, self.folder, self.state = spec, folder, state
        self.before = before
        """The same run, as an earlier sitting left it."""
        self.path = folder.run_folder(state.run)
        self.log = RunLog(self.path, shown=shown)
        self.times = last_times(folder.states())
        self.planner = Planner(spec, folder, lambda says: self._tell(f"  {says}"))
        self.done: dict[str, Result] = {}
        self.repository = self.planner.repository

    def to_end(self) -> RunState:
        write_state(self.path, self.state)
        goes_on = "" if self.before is None else ", which goes on"
        self.log.write("run-started", f"job {self.spec.name}, run {self.state.run}{goes_on}: {self.path}")
        try:
            self._work()
        except BaseException as error:
            said = "stopped" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
            self.state.error = said
            self._end(FAILED, said)
            self._finish()
            raise
        self._finish()
        return self.state

    def _work(self) -> None:
        for work in self.planner.works:
            self._make(work)
        result = self.done["export"]
        labelled = find_labelled(self.repository, self.spec.model, self.spec.publish.label)
        known = find_version(self.repository, self.spec.model, result.content)
        if known is not None and known == labelled and self.before is not None and not self._has_published(known):
            # Cut off when the label had moved, and before it could say so.
            self.state.steps[STEPS.index("gate")] = self.before.step("gate")
            self._label(self._publish(None))
            self._end_published(known)
        elif reason := self._nothing_to_do(known, labelled):
            self._end(NOTHING, reason)
        else:
            bundle = self.planner.bundle(result)
            assert bundle is not None  # noqa: S101 - or the export would have been made again
            self.state.candidate = str(bundle)
            stands = find_labelled(self.repository, self.spec.model, STABLE) or labelled
            standing = None if stands is None else self.repository.resolve(self.spec.model, stands)
            if self._pass_gate(bundle, standing):
                version = self._publish(bundle)
                self._label(version)
                self._end_published(version)
            else:
                held = ", ".join(row.check for row in self.state.gate if not row.passed)
                self._end(HELD, f"by {held}; '{self.spec.publish.label}' stays where it is, {bundle} is not published")

    def _make(self, work: Work) -> None:
        """Do a step that makes something, unless it was done of the same inputs and settings."""
        with self._step(work.name) as step:
            planned = self.planner.plan(work, {name: result.content for name, result in self.done.items()})
            step.key, result = planned.key, planned.result
            step.reused = result is not None
            if result is None:
                self._say_begun(step)
                if planned.continued is not None or planned.anew:
                    self._tell(f"  {planned.anew or f'goes on from {planned.continued}'}")
                started = time.perf_counter()
                place = self.planner.results.place(work.name, planned.key)
                place.mkdir(parents=True, exist_ok=True)
                content, says = work.make(place, self.planner.inputs_of(self.done, planned.continued), self._tell)
                seconds = time.perf_counter() - started
                result = Result(work.name, planned.key, planned.base, content, says, round(seconds, 3))
                self.planner.results.finish(result)
            elif self.before is not None:
                self._take_over(step, self.before.step(work.name))
            self.done[work.name] = result
            step.says = result.says

    def _take_over(self, step: StepState, before: StepState) -> None:
        """Count what an earlier sitting of this run did as this run's."""
        if before.outcome == DONE and before.key == step.key:
            step.reused, step.seconds = before.reused, before.seconds

    def _has_published(self, version: str) -> bool:
        named = {"model": self.spec.model, "version": version}
        return any(state.published == named for state in self.folder.states())

    def _nothing_to_do(self, known: str | None, labelled: str | None) -> str:
        """Why there is nothing to publish; "" where there is."""
        label = self.spec.publish.label
        if known is None:
            return ""
        if known == labelled:
            return f"version {known} of {self.spec.model} is '{label}' already, and nothing changed"
        if not self._has_published(known):
            return ""  # cut off before it had the label
        stands = "nothing" if labelled is None else f"version {labelled}"
        return (
            f"nothing changed since version {known} of {self.spec.model} was published; somebody moved '{label}' "
            f"to {stands} since, and it is left there"
        )

    def _pass_gate(self, bundle: Path, standing: Path | None) -> bool:
        with self._step("gate") as step:
            stands = None if standing is None else open_manifest(standing).bundle_id
            made_of = {"bundle": self.done["export"].content, "labelled": stands, "bounds": asdict(self.spec.gate)}
            step.key = digest("gate", made_of)
            passed = find_passed(self.planner.results, step.key)
            if passed is not None:  # nothing is kept of one that was held: it is measured again
                self.state.gate, self.state.quality = passed.rows, passed.quality
                step.reused, step.says = True, passed.says
                if self.before is not None:
                    self._take_over(step, self.before.step("gate"))
                return True
            self._say_begun(step)
            started = time.perf_counter()
            self._measure(bundle, standing)
            kept = [row for row in self.state.gate if row.passed]
            step.says = f"{len(kept)} of {len(self.state.gate)} checks passed"
            if len(kept) < len(self.state.gate):
                step.outcome = HELD
                return False
            passed = Passed(self.state.gate, self.state.quality, step.says)
            keep_passed(self.planner.results, step.key, passed, round(time.perf_counter() - started, 3))
            return True

    def _measure(self, bundle: Path, standing: Path | None) -> None:
        inputs = self.planner.inputs_of(self.done)
        data, teacher = load_interactions(inputs.data), open_run(inputs.teacher)
        eval_users = self.spec.student.build().options.eval_users
        candidate = Candidate(bundle, self.spec.model, data, teacher, standing, eval_users)
        self.state.gate = judge(candidate, self.spec.gate, lambda name: self._tell(f"  {name}"))
        for row in self.state.gate:
            if not row.passed:
                self._tell(f"  held by {row.check}: {row.look}")
        self.state.quality = candidate.quality

    def _publish(self, bundle: Path | None) -> str:
        """Give the bundle a number in the repository, unless it has one."""
        content = self.done["export"].content
        with self._step("publish") as step:
            step.key = digest("publish", {"bundle": content, "repository": self.repository.place})
            version = find_version(self.repository, self.spec.model, content)
            step.reused = version is not None
            if version is None:
                assert bundle is not None  # noqa: S101 - or it would be there
                version = self.repository.add(bundle, self.spec.model)
            self.state.candidate = self.repository.address(self.spec.model, version)
            step.says = f"{self.spec.model} version {version} in {self.repository.place}"
        return version

    def _label(self, version: str) -> None:
        label = self.spec.publish.label
        with self._step("label") as step:
            step.key = digest("label", {"label": label, "version": version})
            self.repository.set_label(self.spec.model, label, version)
            step.says = f"'{label}' points to version {version}"

    @contextmanager
    def _step(self, name: str) -> Iterator[StepState]:
        """Be at work on a step: the state says so before, and how it ended after."""
        step = self.state.step(name)
        step.outcome, step.started = RUNNING, now()
        write_state(self.path, self.state)
        started = time.perf_counter()
        try:
            yield step
        except BaseException:
            step.outcome = FAILED
            raise
        finally:
            if step.seconds is None:
                step.seconds = round(time.perf_counter() - started, 3)
            step.outcome = DONE if step.outcome == RUNNING else step.outcome
            write_state(self.path, self.state)
        how = "reused" if step.reused else f"{step.outcome} in {say_seconds(step.seconds)}"
        self._event("step-ended", step, f"{how}: {step.says}")

    def _say_begun(self, step: StepState) -> None:
        write_state(self.path, self.state)
        left = say_estimate(STEPS[STEPS.index(step.name) :], self.times)
        self._event("step-begun", step, f"begins{'; ' + left if left else ''}")

    def _event(self, event: str, step: StepState, says: str) -> None:
        more = {"step": step.name, "key": step.key, "seconds": step.seconds, "reused": step.reused}
        self.log.write(event, f"{STEPS.index(step.name) + 1}/{len(STEPS)} {step.name:8s} {says}", more)

    def _tell(self, says: str) -> None:
        self.log.write("progress", says)

    def _end_published(self, version: str) -> None:
        self.state.published = {"model": self.spec.model, "version": version}
        self._end(PUBLISHED, f"version {version} of {self.spec.model} is '{self.spec.publish.label}'")

    def _end(self, outcome: str, says: str) -> None:
        for step in self.state.steps:
            if step.outcome == WAITING and step.name != "metrics":
                step.outcome = SKIPPED
        self.state.outcome, self.state.ended = outcome, now()
        write_state(self.path, self.state)
        self.log.write("run-ended", f"{outcome}: {says}", {"outcome": outcome})

    def _finish(self) -> None:
        """Tell the world how it ended; what cannot be told is a warning, since the version is published already."""
        with self._step("metrics") as step:
            told = [
                self._try("report", lambda: write_report(self.path, self.state, self._runs())),
                self._try("metrics.textfile", lambda: write_textfile(self.spec, self.state, self.folder)),
                self._try("metrics.pushgateway", lambda: push(self.spec, self.state, self.folder)),
                self._try("mlflow", lambda: record_run(self.spec, self.state, self.path)),
            ]
            step.says = ", ".join(filter(None, told))
        self._try("report", lambda: write_report(self.path, self.state, self._runs()))
        self._try("old runs", self._clean)
        write_state(self.path, self.state)

    def _runs(self) -> list[Path]:
        """The teacher's and the student's run, where this run made them."""
        if self.state.outcome == NOTHING:
            return []
        inputs = self.planner.inputs_of(self.done)
        found = [inputs.teacher] if "teacher" in self.done else []
        return [*found, inputs.student] if "distill" in self.done else found

    def _try(self, what: str, send: Callable[[], str]) -> str:
        try:
            return send()
        except Exception as error:
            self.state.warnings.append(f"{what}: {type(error).__name__}: {error}")
            self.log.write("warning", f"  warning: {self.state.warnings[-1]}")
            return ""

    def _clean(self) -> str:
        try:
            served = set(self.repository.labels(self.spec.model).values())
        except UnknownModel:
            served = set()
        keep = {step_folder(step.name, step.key) for step in self.state.steps if step.key}
        self.folder.clean(self.spec.keep_runs, served, keep)
        return ""
