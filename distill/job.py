"""The batch job: settings in, a finished run directory out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from distill.backbones import BACKBONES
from distill.checkpoint import STATE_FILE
from distill.data.interactions import Interactions
from distill.errors import RunError, SettingError
from distill.methods import METHODS, MethodSettings, Teacher
from distill.run import METRICS_FILE, Run
from distill.trainer import Trainer, TrainingOptions


@dataclass(frozen=True)
class Job:
    """What to train.

    Attributes:
        backbone: Name in `BACKBONES`.
        method: Name in `METHODS`.
        dim: d.
        settings: Of the method.
        options: Of the training.
    """

    backbone: str = "bprmf"
    method: str = "scratch"
    dim: int = 64
    settings: MethodSettings = field(default_factory=MethodSettings)
    options: TrainingOptions = field(default_factory=TrainingOptions)

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise SettingError(f"backbone: '{self.backbone}' is not one of {', '.join(BACKBONES)}")
        if self.method not in METHODS:
            raise SettingError(f"method: '{self.method}' is not one of {', '.join(METHODS)}")
        if self.dim < 1:
            raise SettingError(f"dim: {self.dim} is below 1")


def describe(job: Job, data: Interactions, teacher: Run | None) -> dict[str, Any]:
    """The run's `config.json`: every setting that changes the result.

    Args:
        job: What is trained.
        data: On what.
        teacher: From what, or None.
    """
    options = asdict(job.options)
    for name in ("seed", "device", "threads", "tensorboard"):
        options.pop(name)
    method_settings = asdict(job.settings) if METHODS[job.method].needs_teacher else {}
    return {
        "format": 1,
        "backbone": job.backbone,
        "method": job.method,
        "dim": job.dim,
        "seed": job.options.seed,
        "data": {"name": data.name, "fingerprint": data.fingerprint},
        "teacher": None if teacher is None else str(teacher.path),
        "teacher_fingerprint": None if teacher is None else features_fingerprint(teacher),
        "method_settings": method_settings,
        "training": options,
    }


def features_fingerprint(run: Run) -> str:
    """SHA-256 (hex) of a run's embeddings."""
    digest = hashlib.sha256(run.user_embeddings.tobytes())
    digest.update(run.item_embeddings.tobytes())
    return digest.hexdigest()


def run_job(
    job: Job, data: Interactions, out: Path, *, teacher: Run | None = None, resume: bool = False
) -> Mapping[str, Any]:
    """Train and write the run directory.

    Args:
        job: What to train.
        data: Interactions with a validation split.
        out: The run directory; must not hold a finished run.
        teacher: The teacher's run, on the same data.
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
    torch.manual_seed(job.options.seed)
    student = BACKBONES[job.backbone](data.num_users, data.num_items, job.dim)
    method = METHODS[job.method].build(job.settings, data, student, _teacher_features(teacher, data))
    config = describe(job, data, teacher)
    trainer = Trainer(data, student, method, job.options, out=out, config=config)
    if resume:
        trainer.resume()
    return trainer.fit()


def _require_free(out: Path, *, resume: bool) -> None:
    if (out / METRICS_FILE).exists():
        raise RunError(f"{out}: a finished run is there; give another --out, or delete it first")
    if (out / STATE_FILE).exists() and not resume:
        raise RunError(f"{out}: an unfinished run is there; continue it with --resume, or delete it first")
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; give a directory for --out")


def _teacher_features(teacher: Run | None, data: Interactions) -> Teacher | None:
    if teacher is None:
        return None
    teacher.require_same_data(data)
    users, items = torch.from_numpy(teacher.user_embeddings), torch.from_numpy(teacher.item_embeddings)
    return Teacher(torch.cat([users, items]))
