"""What a run would do: which steps have been done of the same inputs and settings, and which are to be done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jobs.record.folder import JobFolder
from jobs.record.state import RunState
from jobs.repository import open_place
from jobs.spec.sections import JobSpec
from jobs.steps.keys import digest
from jobs.steps.publishing import find_labelled, find_version
from jobs.steps.results import Result, Results
from jobs.steps.work import DATA, STUDENT, TEACHER, Export, Inputs, Work, find_staged, works

PLACES = {"prepare": DATA, "teacher": TEACHER, "distill": STUDENT}


@dataclass(frozen=True)
class PlannedStep:
    """A step of which the inputs are known.

    Attributes:
        work: What it does.
        key: Of its inputs and settings.
        base: The key without the run that it goes on from.
        continued: The run to go on from, or None.
        result: What it has made already, or None.
        anew: Why it starts from nothing although it is to go on from a run that is there; "" where it does not.
    """

    work: Work
    key: str
    base: str
    continued: Path | None
    result: Result | None
    anew: str = ""


class Planner:
    """Finds keys and results of a job's steps, one after the other.

    Args:
        spec: Of the job.
        folder: Its folder.
        say: Told what is brought from the repository or sent there.

    Attributes:
        repository: Where it publishes.
    """

    def __init__(self, spec: JobSpec, folder: JobFolder, say: Callable[[str], None] | None = None) -> None:
        self.spec = spec
        self.repository = open_place(spec.publish.repository, folder.path, say)
        self.results = Results(folder.steps)
        self.works = works(spec)
        self._folder = folder
        self._last = folder.last_published()

    def plan(self, work: Work, contents: Mapping[str, str]) -> PlannedStep:
        """Find the key of a step whose inputs have been made, and what was made of it.

        Args:
            work: Of the step.
            contents: Step → content, of the steps before.
        """
        base = work.key(contents)
        before = self._result_of(self._standing, work) if work.continued else None
        if before is None:
            return PlannedStep(work, base, base, None, self._find(work, base))
        for known in (self._result_of(self._last, work), before):
            if known is not None and known.base == base:
                return PlannedStep(work, known.key, base, None, known)  # nothing has changed since
        run = self.results.place(work.name, before.key) / PLACES[work.name]
        if anew := work.differs(run):
            return PlannedStep(work, base, base, None, self._find(work, base), f"cannot go on from {run}: {anew}")
        key = digest(work.name, {"base": base, "continued": before.content})
        return PlannedStep(work, key, base, run, self._find(work, key))

    def inputs_of(self, done: Mapping[str, Result], continued: Path | None = None) -> Inputs:
        """What a step is made of: what the steps before have made, and the run to go on from."""
        return Inputs({name: self.results.place(name, result.key) for name, result in done.items()}, continued)

    @cached_property
    def _standing(self) -> RunState | None:
        """The run that published what the label points to; the last one that published where that is nobody's here."""
        version = find_labelled(self.repository, self.spec.model, self.spec.publish.label)
        named = {"model": self.spec.model, "version": version}
        return next((state for state in self._folder.states() if state.published == named), self._last)

    def _result_of(self, state: RunState | None, work: Work) -> Result | None:
        """What a run has made of a step, or reused."""
        return None if state is None else self.results.find(work.name, state.step(work.name).key)

    def _find(self, work: Work, key: str) -> Result | None:
        result = self.results.find(work.name, key)
        if result is None or not isinstance(work, Export):
            return result
        # A bundle that was published was moved to the repository, where somebody may have removed it.
        is_there = self._staged(result) or find_version(self.repository, self.spec.model, result.content)
        return result if is_there else None

    def bundle(self, result: Result) -> Path | None:
        """Where the bundle of an export is: as it was made, or in the repository, from where it may be brought."""
        if (staged := self._staged(result)) is not None:
            return staged
        version = find_version(self.repository, self.spec.model, result.content)
        return None if version is None else self.repository.fetch(self.spec.model, version)

    def _staged(self, result: Result) -> Path | None:
        return find_staged(self.results.place(result.step, result.key))


def look_ahead(planner: Planner) -> list[tuple[str, str]]:
    """Say of each step that makes something whether it would be reused.

    Returns:
        Step and words: "reused", "runs", or "runs, if … changes".
    """
    contents: dict[str, str] = {}
    said: list[tuple[str, str]] = []
    for work in planner.works:
        unknown = [name for name in work.needs if name not in contents]
        if unknown:
            said.append((work.name, f"depends on what {unknown[0]} makes"))
            continue
        step = planner.plan(work, contents)
        if step.result is None:
            going_on = "" if step.continued is None else f", going on from {step.continued}"
            said.append((work.name, f"runs{going_on}{', from nothing: it ' + step.anew if step.anew else ''}"))
        else:
            contents[work.name] = step.result.content
            said.append((work.name, f"reused: {step.result.says}"))
    return said
