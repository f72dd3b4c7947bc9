"""One training: from flat settings to a job, from a job to a finished run directory, and back to a command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt
import torch

from distill.backbones import BACKBONES, Backbone
from distill.data.interactions import Interactions
from distill.errors import RunError, SettingError
from distill.evaluation.drift import compare_lists
from distill.methods import Teacher
from distill.methods.candidates import is_whole
from distill.methods.co_teachers import (
    AUTO,
    NONE,
    BlendedTeacher,
    ListedTeacher,
    blend_teachers,
    list_teacher,
    parse_co_teachers,
    require_listed,
)
from distill.methods.composition import (
    Settings,
    build_method,
    build_method_settings,
    describe_method_settings,
    learns_lists,
    method_defaults,
    parse_method,
)
from distill.methods.stored_lists import STORED
from distill.methods.svd import truncated_svd
from distill.methods.top_lists import LISTS_PATTERN
from distill.run import METRICS_FILE, Run, features_fingerprint, open_run
from distill.settings import build_settings
from distill.training.checkpoint import STATE_FILE
from distill.training.continuation import CONTINUED_DEFAULTS, Continued, open_continued
from distill.training.teacher import open_teacher
from distill.training.trainer import Trainer, TrainingOptions

RANDOM, SVD = "random", "svd"
NO_TEACHER = Path("none")
"""What `--teacher` is where co-teachers teach alone."""
RECOMMENDED_METHOD = "ce+rcekd"
"""What RESULTS.md finds best: what the teacher would recommend, training items left out, and its order among what the
student itself puts first."""


@dataclass(frozen=True)
class Job:
    """What to train.

    Attributes:
        backbone: Name in `BACKBONES`.
        method: Name in `METHODS`, or a composition such as "freqd+ce".
        dim: d.
        settings: One object a part of the method; None takes the defaults.
        options: Of the training.
        start: Where the student starts: "random", "svd" (the best rank-d cut of the teacher's scores), or the
            directory of a run of the same backbone and dimension. A run makes stages: first one method, then another.
        backbone_settings: An instance of the backbone's `Settings`; None takes the defaults.
        co_teachers: What `parse_co_teachers` reads: who is blended with the teacher, for methods that learn lists.
        continue_from: Yesterday's run of the same backbone, method and dimension, on the data of yesterday: it is gone
            on from, as `distill.training.continuation` says.
    """

    backbone: str = "bprmf"
    method: str = "scratch"
    dim: int = 64
    settings: Settings | None = None
    options: TrainingOptions = field(default_factory=TrainingOptions)
    start: str = RANDOM
    backbone_settings: Any = None
    co_teachers: str = NONE
    continue_from: Path | None = None

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise SettingError(f"backbone: '{self.backbone}' is not one of {', '.join(BACKBONES)}")
        if self.dim < 1:
            raise SettingError(f"dim: {self.dim} is below 1")
        parse_method(self.method)
        if self.options.optimizer == "row-adam" and not BACKBONES[self.backbone].is_table:
            raise SettingError(
                f"optimizer: 'row-adam' moves the rows of a batch alone, and '{self.backbone}' makes its embeddings of "
                "the whole table in every step; give --optimizer adam, or --backbone bprmf"
            )
        if parse_co_teachers(self.co_teachers) and not learns_lists(self.method):
            raise SettingError(
                f"co_teachers: '{self.method}' learns from no lists; give a method that does, such as ce or rcekd, "
                f"or --co-teachers {NONE}"
            )
        if self.continue_from is not None and self.start != RANDOM:
            raise SettingError(
                f"start: '{self.start}' and continue_from both say where training starts; leave one of them out"
            )
        if self.settings is None:
            object.__setattr__(self, "settings", build_method_settings(self.method, {}))
        if self.co_teachers != NONE:
            require_listed(self.settings or ())
        if self.backbone_settings is None:
            object.__setattr__(self, "backbone_settings", BACKBONES[self.backbone].Settings())


@dataclass(frozen=True)
class Student:
    """What flat settings say of the student itself, as in `Job`."""

    dim: int = 64
    start: str = RANDOM
    co_teachers: str | None = None
    continue_from: Path | None = None


STUDENT_SETTINGS = {field.name: str(field.type) for field in fields(Student)}
TRAINING_SETTINGS = {field.name: str(field.type) for field in fields(TrainingOptions)}
"""Name → type of the flat settings that are no method's."""


def build_job(
    method: str,
    given: Mapping[str, Any],
    *,
    backbone: str = "bprmf",
    backbone_settings: Mapping[str, Any] | None = None,
) -> Job:
    """Sort flat settings into a job.

    Args:
        method: A method or a composition.
        given: Name → value, which may be text; None counts as not given. `dim`, `start`, `co_teachers` and
            `continue_from` are the student's, the fields of `TrainingOptions` the training's, all others the method's
            ("part.name" in a composition). A training option that is not given has the method's default, else the
            backbone's, else that of trainings that continue, else the general one; a method that learns lists has the
            co-teachers "auto".
        backbone: Name in `BACKBONES`.
        backbone_settings: Name → value, which may be text.

    Raises:
        SettingError: A name is unknown, or a value has the wrong type or is out of range.
    """
    if backbone not in BACKBONES:
        raise SettingError(f"backbone: '{backbone}' is not one of {', '.join(BACKBONES)}")
    known = {name: value for name, value in given.items() if value is not None}
    student = {name: known.pop(name) for name in STUDENT_SETTINGS if name in known}
    options = {name: known.pop(name) for name in TRAINING_SETTINGS if name in known}
    built = build_settings(Student, student, "student")
    continued = {} if built.continue_from is None else CONTINUED_DEFAULTS
    defaults = {**continued, **BACKBONES[backbone].training_defaults, **method_defaults(method)}
    return Job(
        backbone,
        method,
        built.dim,
        build_method_settings(method, known),
        build_settings(TrainingOptions, {**defaults, **options}, "training"),
        built.start,
        build_settings(BACKBONES[backbone].Settings, backbone_settings or {}, backbone),
        (AUTO if learns_lists(method) else NONE) if built.co_teachers is None else built.co_teachers,
        built.continue_from,
    )


LARGE_DEFAULTS: Mapping[str, Any] = {
    "start": SVD,
    "epochs": 10,
    "eval_every": 1,
    "schedule": "cosine",
    "learning_rate": 0.02,
}
"""Of students of lists where catalogues are not ranked whole. An epoch is a thousand steps and more there, but a user
moves once in it: on 200,000 users a student from nothing had come less far after five epochs than one from the
teacher's SVD after two. Validation Recall@20 after five: 0.150 from nothing; 0.171 from there at a constant rate of
0.005, and 0.183 at 0.02 along a cosine."""


LARGE_CONTINUED_EPOCHS = 3
"""Of 10, as a share of them; not measured at that size."""


def large_defaults(method: str, data: Interactions, *, has_teacher: bool, is_continued: bool = False) -> dict[str, Any]:
    """Choose flat settings by the size of the data, for what is not given: none where it is small.

    Args:
        method: A method or a composition.
        data: Its users and items count.
        has_teacher: Whether there is one to start from.
        is_continued: Whether yesterday's run is gone on from: in its place, and for fewer epochs.
    """
    if is_whole(*data.train.shape) or not learns_lists(method):
        return {}
    chosen = {name: value for name, value in LARGE_DEFAULTS.items() if has_teacher or name != "start"}
    if is_continued:
        chosen.pop("start", None)
        chosen["epochs"] = LARGE_CONTINUED_EPOCHS
    return chosen


FLAGS = {"learning_rate": "--lr"}
"""Training options whose flag on the command line is not their name."""


def command_line(job: Job, data: Path, out: Path, teacher: Path | None = None) -> str:
    """The `lowpass` command that trains a job: backbone, dimension, seed and device, and all that is not default."""
    usual = build_job(job.method, {"continue_from": job.continue_from}, backbone=job.backbone)
    is_taught = any(method.needs_teacher for method in parse_method(job.method))
    words = ["lowpass", "distill" if is_taught else "train", str(data), "--out", str(out)]
    if is_taught:
        words += ["--teacher", str(teacher or NO_TEACHER), "--method", job.method]
    words += ["--backbone", job.backbone, "--dim", str(job.dim)]
    if job.start != RANDOM:
        words += ["--start", job.start]
    if job.continue_from is not None:
        words += ["--continue-from", str(job.continue_from)]
    if job.co_teachers != usual.co_teachers:
        words += ["--co-teachers", job.co_teachers]
    for name, value in vars(job.options).items():
        if name in {"seed", "device"} or value != getattr(usual.options, name):
            words += [FLAGS.get(name, f"--{name.replace('_', '-')}"), str(value)]
    words += _pairs("--backbone-set", asdict(job.backbone_settings), asdict(usual.backbone_settings))
    words += _pairs("--set", _flat_settings(job), _flat_settings(usual))
    return shlex.join(words)


def _pairs(flag: str, settings: Mapping[str, Any], usual: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in settings.items():
        if value != usual[name]:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [flag, f"{name}={text}"]
    return words


def _flat_settings(job: Job) -> dict[str, Any]:
    """Settings of the method by name; by "part.name" in a composition."""
    described = describe_method_settings(job.method, job.settings or ())
    if "+" not in job.method:
        return described
    return {f"{part}.{name}": value for part, own in described.items() for name, value in own.items()}


class DataName(Protocol):
    """What a run records of its data."""

    @property
    def name(self) -> str:
        """Of the data set."""

    @property
    def fingerprint(self) -> str:
        """Of its content."""


def describe(job: Job, data: DataName, teacher: Run | None) -> dict[str, Any]:
    """The run's `config.json`: every setting that changes the result."""
    options = asdict(job.options)
    for name in ("seed", "device", "threads", "tensorboard", "keep_checkpoints"):
        options.pop(name)
    if options["eval_users"] is None:
        options.pop("eval_users")  # as in runs from before it was an option
    return {
        "format": 1,
        "backbone": job.backbone,
        "backbone_settings": asdict(job.backbone_settings),
        "method": job.method,
        "dim": job.dim,
        "seed": job.options.seed,
        "start": job.start,
        "co_teachers": job.co_teachers,
        "data": {"name": data.name, "fingerprint": data.fingerprint},
        "teacher": None if teacher is None else str(teacher.path),
        "teacher_fingerprint": None if teacher is None else features_fingerprint(teacher),
        "method_settings": describe_method_settings(job.method, job.settings or ()),
        "training": options,
        **_describe_continued(job),
    }


def _describe_continued(job: Job) -> dict[str, Any]:
    if job.continue_from is None:
        return {}
    run = open_run(job.continue_from)
    return {"continue_from": str(job.continue_from), "continue_from_fingerprint": features_fingerprint(run)}


def run_job(
    job: Job,
    data: Interactions,
    out: Path,
    *,
    teacher: Run | None = None,
    lists: Path | None = None,
    resume: bool = False,
) -> Mapping[str, Any]:
    """Train and write the run directory.

    Args:
        job: What to train.
        data: Interactions with a validation split.
        out: The run directory; must not hold a finished run.
        teacher: A run on the same data, for a method that learns from one.
        lists: Where lists of co-teachers are found, or else written; `out` when None. Students of one teacher may
            share the place.
        resume: Continue from the checkpoint in `out`.

    Returns:
        What `metrics.json` holds.

    Raises:
        RunError: `out` is taken, or the teacher belongs to other data.
        SettingError: A setting is out of range, or there is nothing to validate on.
    """
    _require_free(out, resume=resume)
    if data.validation.nnz == 0:
        raise SettingError(f"data: '{data.name}' has no validation interactions to stop on; prepare it with a split")
    is_large = learns_lists(job.method) and not is_whole(*data.train.shape)
    if is_large and data.num_items > STORED:
        require_listed(job.settings or (), whole=False)
    torch.manual_seed(job.options.seed)
    student = BACKBONES[job.backbone].build(job.backbone_settings, data, job.dim)
    own = None if teacher is None else open_teacher(teacher, data, student)
    continued = _continue(student, job, data)
    _start(student, job, data, own)
    config = describe(job, data, teacher)
    fingerprint = config["teacher_fingerprint"]
    teaching = own
    if job.co_teachers != NONE:
        tau = student.score_temperature
        folder, eval_users = lists or out, job.options.eval_users
        teaching = blend_teachers(job.co_teachers, data, own, folder, fingerprint, tau, eval_users=eval_users)
    elif own is not None and is_large:
        teaching = list_teacher(data, own, lists or out, fingerprint)
    method = build_method(job.method, job.settings or (), data, student, teaching)
    report: dict[str, Any] = {}
    if isinstance(teaching, BlendedTeacher):
        report["blend"] = teaching.report
    elif isinstance(teaching, ListedTeacher):
        report["lists"] = teaching.report["lists"]
    judge = None
    if continued is not None:
        report["continued"] = continued.report()
        judge = partial(_judge_drift, continued.run, data, job.options.eval_users)
    trainer = Trainer(data, student, method, job.options, out=out, config=config, report=report, judge=judge)
    if resume and not _was_cut_before_training(out):
        trainer.resume()
    return trainer.fit()


def _require_free(out: Path, *, resume: bool) -> None:
    if (out / METRICS_FILE).exists():
        raise RunError(f"{out}: a finished run is there; give another --out, or delete it first")
    if (out / STATE_FILE).exists() and not resume:
        raise RunError(f"{out}: an unfinished run is there; continue it with --resume, or delete it first")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; give a directory for --out")


def _was_cut_before_training(out: Path) -> bool:
    """Whether a run ended between making its lists and its first checkpoint: it goes on with the lists."""
    return not (out / STATE_FILE).exists() and any(out.glob(LISTS_PATTERN))


def _continue(student: Backbone, job: Job, data: Interactions) -> Continued | None:
    """Lay yesterday's rows into the student, where there are any."""
    if job.continue_from is None:
        return None
    continued = open_continued(job.continue_from, job.backbone, job.method, job.dim, data)
    fresh = student.features.detach().numpy()
    rows = continued.rows(data.train, fresh[: data.num_users], fresh[data.num_users :])
    with torch.no_grad():
        student.features.copy_(torch.cat([torch.from_numpy(side) for side in rows]))
    return continued


def _judge_drift(
    old_run: Run, data: Interactions, eval_users: int | None, users: npt.NDArray[Any], items: npt.NDArray[Any]
) -> dict[str, Any]:
    return {"drift": compare_lists(old_run, (users, items), data, eval_users=eval_users).as_dict()}


def _start(student: Backbone, job: Job, data: Interactions, teacher: Teacher | None) -> None:
    if job.start == RANDOM:
        return
    if job.start == SVD:
        if teacher is None:
            raise SettingError("start: 'svd' cuts the teacher's scores; give --teacher RUN, or start at random")
        users, items = truncated_svd(teacher.users.numpy(), teacher.items.numpy(), job.dim)
    else:
        run = open_run(Path(job.start), data)
        if run.dim != job.dim:
            raise SettingError(
                f"start: {run.path} has dimension {run.dim}, not {job.dim}; give a run of that dimension"
            )
        users, items = run.user_embeddings, run.item_embeddings
    with torch.no_grad():
        student.features.copy_(torch.cat([torch.from_numpy(users), torch.from_numpy(items)]))
