"""The work of each step that makes something: its key from inputs and settings, and what it makes in a folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from distill.data.interactions import Interactions, load_interactions, save_interactions
from distill.data.prepare import prepare_source
from distill.evaluation.comparison import SHOWN
from distill.run import METRICS_FILE, Run, features_fingerprint, open_run
from distill.training.checkpoint import STATE_FILE
from distill.training.job import Job, describe, large_defaults, run_job
from distill.training.teacher_import import import_embeddings
from export.build.publish import export_run
from export.bundle import ModelRepository, open_manifest
from jobs.spec.sections import CONTINUE_FROM, ImportSpec, JobSpec, ModelSpec
from jobs.steps.keys import digest, hash_source

DATA, TEACHER, STUDENT, MODELS = "data", "teacher", "student", "models"
"""Folders in those of the steps; a bundle names its teacher after the second."""

Say = Callable[[str], object]
"""Takes what somebody who waits should know."""


@dataclass(frozen=True)
class DataName:
    """What keys and settings say of a data set, without opening it."""

    name: str
    fingerprint: str


@dataclass(frozen=True)
class Inputs:
    """What a step is made of.

    Attributes:
        places: Step → folder of what it made.
        continued: The run to go on from, or None.
    """

    places: Mapping[str, Path]
    continued: Path | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.places["prepare"] / DATA

    @property
    def teacher(self) -> Path:
        """The teacher's run."""
        return self.places["teacher"] / TEACHER

    @property
    def student(self) -> Path:
        """The student's run."""
        return self.places["distill"] / STUDENT


class Work(ABC):
    """What a step does.

    Args:
        spec: Of the job.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    """Steps whose contents are in its key."""

    def __init__(self, spec: JobSpec) -> None:
        self.spec = spec

    @abstractmethod
    def made_of(self, contents: Mapping[str, str]) -> dict[str, Any]:
        """Settings and contents of inputs, JSON-ready: what the key is of."""

    @abstractmethod
    def make(self, folder: Path, inputs: Inputs, say: Say) -> tuple[str, str]:
        """Make it in a folder, or go on with what is there of it; return its content and what came out, in a line."""

    @property
    def continued(self) -> bool:
        """Whether it goes on from what the run of the labelled version made."""
        return False

    def differs(self, before: Path) -> str:
        """Why it cannot go on from a run, in words; "" where it can."""
        return ""

    def key(self, contents: Mapping[str, str]) -> str:
        """SHA-256 (hex) of all that it is made of, but the run that it goes on from."""
        return digest(self.name, self.made_of(contents))


class Prepare(Work):
    """Interactions → data directory."""

    name = "prepare"

    def made_of(self, contents: Mapping[str, str]) -> dict[str, Any]:
        """The bytes of the source, and how they are read."""
        data = self.spec.data
        items = None if data.items is None else hash_source(data.items)
        settings = {**asdict(data.options), **asdict(data.columns), "name": data.name, "format": data.format}
        return {"source": hash_source(data.source), "named": data.source.name, "items": items, "settings": settings}

    def make(self, folder: Path, inputs: Inputs, say: Say) -> tuple[str, str]:
        """Read, filter, split and store; what is prepared already is taken as it is."""
        data = self.spec.data
        if data.is_prepared:
            interactions = load_interactions(data.source)
        else:
            interactions = prepare_source(
                data.source, data.options, name=data.name, format_name=data.format, columns=data.columns,
                items=data.items, begin=lambda stage: say(f"  {stage}"),
            )  # fmt: skip
        for warning in interactions.settings.get("understood", {}).get("warnings", []):
            say(f"  warning: {warning}")
        save_interactions(interactions, folder / DATA)
        counts = ", ".join(f"{count:,} {name}" for name, count in interactions.counts.items())
        return interactions.fingerprint, counts


class _Training(Work):
    """A training, alone or from a teacher."""

    place: ClassVar[str]

    @property
    @abstractmethod
    def model(self) -> ModelSpec:
        """Its section of the spec."""

    @property
    def continued(self) -> bool:
        """Whether it goes on from what the run of the labelled version made."""
        return self.model.continued

    def differs(self, before: Path) -> str:
        """Why it cannot go on from a run: of what kind that one is."""
        job, config = self.model.build(), open_run(before).config
        return ", ".join(
            f"its {name} is {config.get(name)!r} and not {wanted!r}"
            for name, wanted in (("backbone", job.backbone), ("method", job.method), ("dim", job.dim))
            if config.get(name) != wanted
        )

    def made_of(self, contents: Mapping[str, str]) -> dict[str, Any]:
        """Every setting that changes the result, data and teacher by their fingerprints."""
        job = self.model.build()
        config = describe(job, DataName(self.spec.data.name, contents["prepare"]), None)
        return {
            "config": {**config, "teacher_fingerprint": contents.get("teacher") if "teacher" in self.needs else None},
            "given": sorted(self.model.settings),  # what is not given may have another default where data are large
            "keep_checkpoints": job.options.keep_checkpoints,
        }

    def train(self, job: Job, data: Interactions, out: Path, teacher: Path | None, say: Say) -> tuple[str, str]:
        """Train, or go on from the checkpoint, or take what is finished."""
        if not (out / METRICS_FILE).exists():
            run = None if teacher is None else open_run(teacher)
            run_job(job, data, out, teacher=run, resume=(out / STATE_FILE).exists())
        doubt = open_run(out).metrics.get("continued", {}).get("doubt")
        if doubt:
            say(f"  warning: {doubt}")
        return name_run(out)


class TrainTeacher(_Training):
    """Data → teacher's run, trained here."""

    name, needs, place = "teacher", ("prepare",), TEACHER

    @property
    def model(self) -> ModelSpec:
        """The teacher's."""
        return self.spec.teacher

    def make(self, folder: Path, inputs: Inputs, say: Say) -> tuple[str, str]:
        """Train."""
        job = self.model.build(_going_on(inputs))
        return self.train(job, load_interactions(inputs.data), folder / TEACHER, None, say)


class ImportTeacher(Work):
    """Data and embeddings from outside → teacher's run."""

    name, needs = "teacher", ("prepare",)

    @property
    def files(self) -> ImportSpec:
        """Where the embeddings are."""
        assert self.spec.teacher.imported  # noqa: S101 - chosen by it
        return self.spec.teacher.imported

    def made_of(self, contents: Mapping[str, str]) -> dict[str, Any]:
        """The bytes of its files."""
        files = {name: hash_source(path) for name, path in self.files.files.items()}
        kinds = {name: path.suffix for name, path in self.files.files.items()}
        return {"data": contents["prepare"], "files": files, "kinds": kinds, "name": self.files.name}

    def make(self, folder: Path, inputs: Inputs, say: Say) -> tuple[str, str]:
        """Read, check, measure and store."""
        out, files = folder / TEACHER, self.files
        if not (out / METRICS_FILE).exists():
            import_embeddings(
                load_interactions(inputs.data), files.users, files.items, out, files.name,
                users_ids=files.users_ids, items_ids=files.items_ids, progress=True,
            )  # fmt: skip
        understood = open_run(out).metrics["import"]
        for side in ("users", "items"):
            say(f"  {side}: {understood[side]}")
        if understood["doubt"]:
            say(f"  warning: {understood['doubt']}")
        return name_run(out)


class Distill(_Training):
    """Data and teacher → student's run."""

    name, needs, place = "distill", ("prepare", "teacher"), STUDENT

    @property
    def model(self) -> ModelSpec:
        """The student's."""
        return self.spec.student

    def make(self, folder: Path, inputs: Inputs, say: Say) -> tuple[str, str]:
        """Distill; where data are large, with the defaults that suit them."""
        data = load_interactions(inputs.data)
        is_continued = inputs.continued is not None
        usual = large_defaults(self.model.method, data, has_teacher=True, is_continued=is_continued)
        if usual:
            say(f"  many users and items: {', '.join(f'{name} {value}' for name, value in usual.items())}")
        job = self.model.build({**usual, **_going_on(inputs)})
        return self.train(job, data, folder / STUDENT, inputs.teacher, say)


class Export(Work):
    """Data, teacher and student → bundle, in a repository of its own."""

    name, needs = "export", ("prepare", "teacher", "distill")

    def made_of(self, contents: Mapping[str, str]) -> dict[str, Any]:
        """Runs by their content, and the settings of the export."""
        return {"inputs": {name: contents[name] for name in self.needs}, "options": asdict(self.spec.export)}

    def make(self, folder: Path, inputs: Inputs, say: Say) -> tuple[str, str]:
        """Export, or take what is finished."""
        staged = ModelRepository(folder / MODELS)
        found = find_staged(folder)
        path = found or export_run(
            open_run(inputs.student),
            load_interactions(inputs.data),
            staged,
            self.spec.model,
            replace(self.spec.export, label=None),
            teacher=open_run(inputs.teacher),
        )
        manifest = open_manifest(path)
        card = manifest.index
        says = (
            f"{manifest.total_bytes:,} bytes, index {card.factory} finds {card.ann_recall:.1%} of the top "
            f"{card.ann_recall_k}"
        )
        return manifest.bundle_id, says


def find_staged(folder: Path) -> Path | None:
    """The bundle in what the export made, or None where it has been moved on."""
    staged = ModelRepository(folder / MODELS)
    return next((staged.resolve(model) for model in staged.models()), None)


def works(spec: JobSpec) -> list[Work]:
    """The steps that make something, in order."""
    teacher = ImportTeacher(spec) if spec.teacher.imported else TrainTeacher(spec)
    return [Prepare(spec), teacher, Distill(spec), Export(spec)]


def name_run(out: Path) -> tuple[str, str]:
    """Fingerprint of a run, and its quality in a line."""
    run = open_run(out)
    split = next((split for split in ("test", "validation") if split in run.metrics), None)
    quality = [] if split is None else [f"{split} {name} {run.metrics[split][name]:.4f}" for name in SHOWN]
    training = run.metrics.get("training", {})
    epochs = [f"best epoch {training['best_epoch']} of {training['epochs']}"] if training else []
    return features_fingerprint(run), ", ".join([f"d {run.dim}", *_say_continued(run), *epochs, *quality])


def _say_continued(run: Run) -> list[str]:
    found = run.metrics.get("continued")
    if found is None:
        return []
    kept = " and ".join(f"{found[f'{side}_kept']:,} {side}" for side in ("users", "items"))
    new = " and ".join(f"{found[f'{side}_new']:,}" for side in ("users", "items"))
    return [f"goes on with {kept}, {new} new"]


def _going_on(inputs: Inputs) -> dict[str, Any]:
    return {} if inputs.continued is None else {CONTINUE_FROM: inputs.continued}
