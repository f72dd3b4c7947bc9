"""The plan of the evidence, `plan.toml`: it says what is compared on what.

Example:
    patience = 60                       # training options of every student; a trial may override them
    summary = ["svd", "freqd"]          # the columns of the first table
    [data]                              # a file or folder below the data root, and how its rows become interactions
    ml-100k = { source = "ml-100k", options = { user_minimum = 5 } }
    [contestants.freqd]                 # a name in the tables
    method = "freqd"
    trials = [{ distillation_weight = 0.5 }, { distillation_weight = 0.05, weight_decay = 1e-4 }]
    [[study]]                           # one table
    data = "ml-100k"
    backbone = "bprmf"
    teacher = { dim = 200 }
    dim = 20
    seeds = [0, 1, 2]
    contestants = ["scratch", "freqd"]
    untrained = ["popularity", "svd", "teacher-pq"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from distill.data.prepare import PrepareOptions
from distill.errors import SettingError
from distill.methods.composition import parse_method
from distill.settings import build_settings
from distill.training.job import TRAINING_SETTINGS
from results.untrained import OF_STUDENT_SIZE, UNTRAINED

CLOSED = ConfigDict(extra="forbid")


@checked(frozen=True, config=CLOSED)
class Contestant:
    """A trained entry of a table.

    Attributes:
        method: A method or a composition.
        trials: Settings of the method and training options, one mapping a trial.
        backbone: The student's, where it is not the study's.
        start: Where the student starts, as in `distill.training.job.Job`.
        co_teachers: Who is blended with the teacher, likewise.
        teacher: Whether the study's teacher teaches; else co-teachers do alone.
    """

    method: str
    backbone: str = ""
    trials: tuple[dict[str, Any], ...] = ({},)
    start: str = "random"
    co_teachers: str = "none"
    teacher: bool = True


@checked(frozen=True, config=CLOSED)
class Study:
    """One table.

    Attributes:
        data: A key of the plan's `data`.
        backbone: The teacher's, and that of students that have none of their own.
        teacher: `dim` and training options.
        dim: Students' dimension.
        more_dims: Further dimensions, and who is trained there.
        seeds: The first one is that of the trials.
        contestants: Keys of the plan's `contestants`.
        untrained: Names in `UNTRAINED`.
        training: Training options of this study's students, over the plan's.
        trials: How many of each contestant's trials are run, from the first; 0 for all.
        trials_of: How many of some contestants', where that is another number.
        teacher_settings: Settings of the teacher's backbone.
        pictured: Whether its page has the picture of quality by size and by time.
    """

    data: str
    backbone: str
    teacher: dict[str, Any]
    dim: int = 20
    more_dims: dict[int, tuple[str, ...]] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    contestants: tuple[str, ...] = ()
    untrained: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    trials: int = 0
    trials_of: dict[str, int] = field(default_factory=dict)
    teacher_settings: dict[str, Any] = field(default_factory=dict)
    pictured: bool = False

    @property
    def name(self) -> str:
        """What its cells' names begin with."""
        return f"{self.data}/{self.backbone}"

    @property
    def file_name(self) -> str:
        """What its page, its reading and its picture are called, without a suffix."""
        return self.name.replace("/", "-")

    @property
    def contestants_by_dim(self) -> dict[int, tuple[str, ...]]:
        """Who is trained at which dimension."""
        return {self.dim: self.contestants, **self.more_dims}

    def untrained_at(self, dim: int) -> tuple[str, ...]:
        """What is built at a dimension; what no dimension changes is built at the study's own."""
        return tuple(name for name in self.untrained if dim == self.dim or name in OF_STUDENT_SIZE)


@checked(frozen=True, config=CLOSED)
class DataSource:
    """A public set.

    Attributes:
        source: File or folder below the data root; its stem names the data set.
        options: Fields of `PrepareOptions`.
    """

    source: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join([self.source, *(f"{name} = {value}" for name, value in self.options.items())])

    @property
    def prepare_options(self) -> PrepareOptions:
        """How its rows become interactions."""
        return build_settings(PrepareOptions, self.options, self.source)


@dataclass(frozen=True)
class Plan:
    """What is compared on what.

    Attributes:
        data: Name → what is prepared.
        contestants: Name → method and trials.
        studies: In the order of the tables.
        training: Training options of every student.
        summary: Contestants and untrained models that the summary over all studies shows.
    """

    data: Mapping[str, DataSource]
    contestants: Mapping[str, Contestant]
    studies: tuple[Study, ...]
    training: Mapping[str, Any]
    summary: tuple[str, ...] = ()


def load_plan(path: Path) -> Plan:
    """Read and check a plan.

    Raises:
        SettingError: Unreadable, an unknown key, or a name that stands for nothing.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        data = TypeAdapter(dict[str, DataSource]).validate_python(content.pop("data", {}))
        contestants = TypeAdapter(dict[str, Contestant]).validate_python(content.pop("contestants", {}))
        studies = TypeAdapter(tuple[Study, ...]).validate_python(content.pop("study", ()))
        summary = TypeAdapter(tuple[str, ...]).validate_python(content.pop("summary", ()))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"{path}: unreadable plan ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise SettingError(f"{path}: {place}: {first['msg']}") from error
    for source in data.values():
        _ = source.prepare_options
    for contestant in contestants.values():
        parse_method(contestant.method)
    for study in studies:
        _require(path, study.data, data, "data")
        for name in (name for names in study.contestants_by_dim.values() for name in names):
            _require(path, name, contestants, "contestants")
        for name in study.trials_of:
            _require(path, name, study.contestants, f"contestants of {study.name}")
        for name in study.untrained:
            _require(path, name, UNTRAINED, "untrained")
    for name in content:
        _require(path, name, TRAINING_SETTINGS, "training options")
    for name in summary:
        _require(path, name, (*UNTRAINED, *contestants), "untrained or contestants")
    return Plan(data, contestants, studies, content, summary)


def _require(path: Path, name: str, known: Collection[str], section: str) -> None:
    if name not in known:
        raise SettingError(f"{path}: '{name}' is not in {section}; it has {', '.join(known)}")


def num_trials(plan: Plan, study: Study, name: str) -> int:
    """How many of a contestant's trials a study runs."""
    given = len(plan.contestants[name].trials)
    return min(given, study.trials_of.get(name, study.trials) or given)
