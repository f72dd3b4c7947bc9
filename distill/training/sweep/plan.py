"""One sweep in full: what is trained, what is varied, and from sampled values to a job or a command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from distill.backbones import BACKBONES
from distill.errors import SettingError
from distill.methods.composition import build_method_settings
from distill.settings import build_settings
from distill.training.job import RANDOM, Job, training_options
from distill.training.sweep.space import Axis, StudentSettings, Value, grid_points
from distill.training.trainer import TrainingOptions

FLAGS = {"learning_rate": "--lr"}
"""Training options whose flag on the command line is not their name."""


@dataclass(frozen=True)
class Plan:
    """What every trial of a sweep has in common.

    Attributes:
        data: The data directory.
        teacher: The teacher's run, or None for a method without one.
        method: A method or a composition.
        backbone: Name in `BACKBONES`.
        backbone_settings: Setting → value.
        axes: What is varied.
        fixed: Setting → value of what is not varied and not at its default.
        seed: Of every trial's training, and of the draws of settings.
        max_seconds: Of training a trial; None for no limit.
        device: Where trials run; changes no setting.
    """

    data: Path
    teacher: Path | None
    method: str
    backbone: str
    backbone_settings: Mapping[str, str]
    axes: tuple[Axis, ...]
    fixed: Mapping[str, str]
    seed: int = 0
    max_seconds: float | None = None
    device: str = "cpu"

    def describe(self) -> dict[str, Any]:
        """What a resumed sweep must have in common with the one it goes on from."""
        return {
            "method": self.method,
            "backbone": self.backbone,
            "backbone_settings": dict(self.backbone_settings),
            "space": [{key: _plain(value) for key, value in asdict(axis).items()} for axis in self.axes],
            "fixed": dict(self.fixed),
            "seed": self.seed,
            "max_seconds": self.max_seconds,
        }

    def check(self) -> None:
        """Build a job at both ends of every range and with every choice.

        Raises:
            SettingError: A value does not fit its setting, or a setting is both varied and fixed.
        """
        for axis in self.axes:
            if axis.name in self.fixed:
                raise SettingError(f"{axis.name}: is varied already; do not fix it by --set")
        first = {axis.name: grid_points(axis, 2)[0] for axis in self.axes}
        for axis in self.axes:
            for value in grid_points(axis, 2):
                self.build_job({**first, axis.name: value})

    def build_job(self, values: Mapping[str, Value]) -> Job:
        """The job of a trial.

        Args:
            values: One value an axis.

        Raises:
            SettingError: A value does not fit its setting.
        """
        student, options, settings = self._sort(values)
        typed = build_settings(TrainingOptions, options, "training")
        built = build_settings(StudentSettings, student, "student")
        return Job(
            self.backbone,
            self.method,
            built.dim,
            build_method_settings(self.method, settings),
            training_options(
                self.backbone,
                self.method,
                **{name: getattr(typed, name) for name in options},
                seed=self.seed,
                device=self.device,
                max_seconds=self.max_seconds,
            ),
            built.start,
            build_settings(BACKBONES[self.backbone].Settings, self.backbone_settings, self.backbone),
        )

    def command(self, values: Mapping[str, Value], out: str) -> str:
        """The command line that trains what `build_job` describes."""
        student, options, settings = self._sort(values)
        verb = "train" if self.teacher is None else "distill"
        words = ["lowpass", verb, str(self.data), "--out", out]
        if self.teacher is not None:
            words += ["--teacher", str(self.teacher), "--method", self.method]
        words += ["--backbone", self.backbone, "--dim", str(student.get("dim", StudentSettings.dim))]
        if student.get("start", RANDOM) != RANDOM:
            words += ["--start", str(student["start"])]
        common = {"seed": self.seed, "device": self.device, "max_seconds": self.max_seconds}
        for name, value in {**options, **common}.items():
            if value is not None:
                words += [FLAGS.get(name, f"--{name.replace('_', '-')}"), str(value)]
        for name, text in self.backbone_settings.items():
            words += ["--backbone-set", f"{name}={text}"]
        for name, value in settings.items():
            words += ["--set", f"{name}={value}"]
        return shlex.join(words)

    def _sort(self, values: Mapping[str, Value]) -> tuple[dict[str, Value], dict[str, Value], dict[str, Value]]:
        """Settings of the student, training options, settings of the method."""
        given: dict[str, Value] = {**self.fixed, **values}
        of_student = {field.name for field in fields(StudentSettings)}
        of_training = {field.name for field in fields(TrainingOptions)}
        return (
            {name: value for name, value in given.items() if name in of_student},
            {name: value for name, value in given.items() if name in of_training},
            {name: value for name, value in given.items() if name not in of_student | of_training},
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
