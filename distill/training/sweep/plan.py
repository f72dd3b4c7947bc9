"""What a sweep trains: what its trials have in common, and the axes along which they differ.

Axes are read from the user's words and checked by name:

    alpha=0:1                        any number between the two
    distillation_weight=log:0.01:10  the same, drawn evenly on a logarithmic scale
    projector=linear,mlp             one of these
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import SettingError
from distill.methods.composition import learns_lists, parse_method
from distill.training.job import STUDENT_SETTINGS, TRAINING_SETTINGS, Job, build_job, command_line

Value = str | int | float

FIXED_OPTIONS = ("max_seconds", "eval_users", "seed", "device", "threads", "tensorboard", "keep_checkpoints")
"""Training options that are the same in every trial, or no business of the result."""
DIGITS = 4
"""Significant digits of a number that is tried: what is printed is what was trained, to the last bit."""
DIM = 20
"""d_s where it is neither varied nor fixed."""


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included.

    Attributes:
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
    """A list of values, as the user wrote them."""

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
    taught = {"start": needs_teacher(method), "co_teachers": learns_lists(method)}
    known = {name: kind for name, kind in STUDENT_SETTINGS.items() if taught.get(name, True)}
    known |= {name: kind for name, kind in TRAINING_SETTINGS.items() if name not in FIXED_OPTIONS}
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


def _split(text: str, known: Mapping[str, str], method: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not separator or not value:
        raise SettingError(f"{text}: has no value; write NAME=…")
    _require_known(name, known, method)
    return name, value


def _require_known(name: str, known: Mapping[str, str], method: str) -> None:
    if name not in known:
        raise SettingError(f"{name}: '{method}' has no such setting; it has {', '.join(known)}")


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


@dataclass(frozen=True)
class Plan:
    """What every trial of a sweep has in common.

    Attributes:
        data: The data directory.
        teacher: The teacher's run, or None for a method without one.
        method: A method or a composition.
        backbone: Name in `BACKBONES`.
        backbone_settings: Name → value, as the user wrote them.
        axes: What is varied.
        fixed: Name → value of what is not varied and not at its default.
        seed: Of every trial's training, and of the draws of settings.
        max_seconds: Of training a trial; None for no limit.
        device: Where trials run; changes no setting.
        eval_users: On how many users each trial is measured, as in `Protocol`.
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
    eval_users: int | None = None

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
            "eval_users": self.eval_users,
        }

    def check(self) -> None:
        """Build a job at both ends of every range and with every choice.

        Raises:
            SettingError: A value does not fit its setting, or a setting is both varied and fixed.
        """
        for name in self.fixed:
            _require_known(name, sweepable(self.method), self.method)
            if name in {axis.name for axis in self.axes}:
                raise SettingError(f"{name}: is varied already; do not fix it by --set")
        first = {axis.name: grid_points(axis, 2)[0] for axis in self.axes}
        for axis in self.axes:
            for value in grid_points(axis, 2):
                self.build_job({**first, axis.name: value})

    def build_job(self, values: Mapping[str, Value]) -> Job:
        """The job of a trial, from one value an axis.

        Raises:
            SettingError: A value does not fit its setting.
        """
        common = {name: getattr(self, name) for name in ("seed", "device", "max_seconds", "eval_users")}
        given = {"dim": DIM, **self.fixed, **values, **common}
        return build_job(self.method, given, backbone=self.backbone, backbone_settings=self.backbone_settings)

    def command(self, values: Mapping[str, Value], out: Path) -> str:
        """The command line that trains what `build_job` describes."""
        return command_line(self.build_job(values), self.data, out, self.teacher)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
