"""One sweep in full: what is trained, what is varied, and from sampled values to a job or a command line.

What a sweep varies: ranges of numbers and lists of choices, read from the user's words and checked by name.

alpha=0:1                        any number between the two
distillation_weight=log:0.01:10  the same, drawn evenly on a logarithmic scale
projector=linear,mlp             one of these
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from distill.backbones import BACKBONES
from distill.errors import SettingError
from distill.methods.composition import build_method_settings, parse_method
from distill.settings import build_settings
from distill.training.job import RANDOM, Job, training_options
from distill.training.trainer import TrainingOptions

Value = str | int | float

FIXED_OPTIONS = ("max_seconds", "seed", "device", "threads", "tensorboard")
"""Training options that are the same in every trial, or no business of the result."""
DIGITS = 4
"""Significant digits of a number that is tried: what is printed is what was trained, to the last bit."""


@dataclass(frozen=True)
class StudentSettings:
    """What a sweep may vary of the student itself.

    Attributes:
        dim: d_s.
        start: Where it starts, as in `Job`.
    """

    dim: int = 20
    start: str = RANDOM


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included.

    Attributes:
        name: Of the setting.
        low: Lower end.
        high: Upper end.
        log: Whether numbers are spread evenly on a logarithmic scale.
        integer: Whether only whole numbers fit the setting.
    """

    name: str
    low: float
    high: float
    log: bool = False
    integer: bool = False

    def shown(self, value: float) -> Value:
        """A value as it is trained and printed."""
        return round(value) if self.integer else float(f"{value:.{DIGITS}g}")


@dataclass(frozen=True)
class Choice:
    """A list of values.

    Attributes:
        name: Of the setting.
        values: As the user wrote them.
    """

    name: str
    values: tuple[str, ...]


Axis = Range | Choice


def grid_points(axis: Axis, count: int) -> tuple[Value, ...]:
    """The values of an axis that an exhaustive sweep tries.

    Args:
        axis: All values of a choice are tried.
        count: Values of a range, evenly spread on its own scale, ends included; whole numbers may be fewer.
    """
    if isinstance(axis, Choice):
        return axis.values
    spread = np.geomspace if axis.log else np.linspace
    return tuple(dict.fromkeys(axis.shown(float(value)) for value in spread(axis.low, axis.high, count)))


def sweepable(method: str) -> dict[str, str]:
    """Name → type of everything that can be varied or fixed under a method.

    In a composition a setting can also be named "part.setting".
    """
    known = {"dim": "int", "start": "str"} if needs_teacher(method) else {"dim": "int"}
    known |= {field.name: str(field.type) for field in fields(TrainingOptions) if field.name not in FIXED_OPTIONS}
    parts = method.split("+")
    for part, kind in zip(parts, parse_method(method), strict=True):
        own = {field.name: str(field.type) for field in fields(kind.Settings)}
        known |= own
        if len(parts) > 1:
            known |= {f"{part}.{name}": kind_of for name, kind_of in own.items()}
    return known


def needs_teacher(method: str) -> bool:
    """Whether a method, or any part of a composition, learns from a teacher."""
    return any(kind.needs_teacher for kind in parse_method(method))


def parse_space(ranges: Sequence[str], choices: Sequence[str], method: str) -> tuple[Axis, ...]:
    """Read the axes of a sweep.

    Args:
        ranges: "NAME=LOW:HIGH" or "NAME=log:LOW:HIGH".
        choices: "NAME=A,B,…".
        method: Decides which names there are.

    Raises:
        SettingError: A name is unknown or given twice, a range is none, or nothing is varied.
    """
    known = sweepable(method)
    axes: list[Axis] = [_parse_range(*_split(text, known, method), known) for text in ranges]
    axes += [_parse_choice(*_split(text, known, method)) for text in choices]
    names = [axis.name for axis in axes]
    for name in names:
        if names.count(name) > 1:
            raise SettingError(f"{name}: is given twice; vary it by one --range or one --choice")
    if not axes:
        raise SettingError("range: nothing is varied; give --range NAME=LOW:HIGH or --choice NAME=A,B")
    return tuple(axes)


def parse_pairs(texts: Sequence[str], known: Collection[str], owner: str) -> dict[str, str]:
    """Read "NAME=VALUE" pairs.

    Raises:
        SettingError: A pair has no value, or a name is not known.
    """
    return dict(_split(text, known, owner) for text in texts)


def _split(text: str, known: Collection[str], owner: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not separator or not value:
        raise SettingError(f"{text}: has no value; write NAME=…")
    if name not in known:
        raise SettingError(f"{name}: '{owner}' has no such setting; it has {', '.join(known) or 'none'}")
    return name, value


def _parse_range(name: str, text: str, known: Mapping[str, str]) -> Range:
    kind = known[name].split(" | ")[0]
    if kind not in {"int", "float"}:
        raise SettingError(f"{name}: is no number; vary it by --choice {name}=A,B")
    log = text.startswith("log:")
    ends = text.removeprefix("log:").split(":")
    try:
        low, high = (float(int(end)) if kind == "int" else float(end) for end in ends)
    except ValueError as error:
        number = "a whole number" if kind == "int" else "a number"
        raise SettingError(f"{name}: '{text}' is not LOW:HIGH or log:LOW:HIGH, each {number}") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SettingError(f"{name}: {ends[0]} is not below {ends[1]}; give LOW:HIGH")
    if log and low <= 0:
        raise SettingError(f"{name}: a logarithmic range starts above 0, not at {ends[0]}")
    return Range(name, low, high, log, kind == "int")


def _parse_choice(name: str, text: str) -> Choice:
    values = tuple(value.strip() for value in text.split(","))
    if len(set(values)) < max(len(values), 2):
        raise SettingError(f"{name}: '{text}' is no list of two or more different values; write {name}=A,B")
    return Choice(name, values)


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
