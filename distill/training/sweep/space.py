"""What a sweep varies: ranges of numbers and lists of choices, read from the user's words and checked by name.

alpha=0:1                        any number between the two
distillation_weight=log:0.01:10  the same, drawn evenly on a logarithmic scale
projector=linear,mlp             one of these
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from distill.errors import SettingError
from distill.methods.composition import parse_method
from distill.training.job import RANDOM
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
