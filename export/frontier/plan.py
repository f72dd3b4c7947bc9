"""What is put on the frontier: methods × dimensions are trained, precisions are derived, baselines are fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distill.backbones import BACKBONES
from distill.baselines import BASELINES
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods.co_teachers import AUTO, parse_co_teachers
from distill.methods.composition import learns_lists, parse_method
from distill.training.job import Job, build_job, large_defaults
from export.build.precision import PRECISIONS

DEFAULT_METHODS = ("scratch", "fd", "freqd", "ce", "freqd+ce", "ce+rcekd")
DEFAULT_DIMS = (8, 16, 32)
RESERVED = {"teacher", "svd", *BASELINES}
"""Names of what is not trained."""


@dataclass(frozen=True)
class Plan:
    """The candidates.

    Attributes:
        methods: Methods or compositions, each trained once at each dimension; empty trains nothing.
        dims: d_s, each below the teacher's.
        precisions: In `PRECISIONS`; derived from every student, from the teacher and from its SVD.
        baselines: In `BASELINES`.
        backbone: Of the students, in `BACKBONES`.
        training: Fields of `TrainingOptions` that hold for every student; None counts as not given.
        co_teachers: Of the students whose methods learn lists, as `distill --co-teachers` reads it.
        max_seconds_alone: Bound on the training of a student whose method learns no lists; None for none.
    """

    methods: tuple[str, ...] = DEFAULT_METHODS
    dims: tuple[int, ...] = DEFAULT_DIMS
    precisions: tuple[str, ...] = PRECISIONS
    baselines: tuple[str, ...] = tuple(BASELINES)
    backbone: str = "bprmf"
    training: Mapping[str, Any] = field(default_factory=dict)
    co_teachers: str = AUTO
    max_seconds_alone: float | None = None

    def __post_init__(self) -> None:
        for name, known in (("precisions", PRECISIONS), ("baselines", tuple(BASELINES))):
            for value in getattr(self, name):
                if value not in known:
                    raise SettingError(f"{name}: '{value}' is not one of {', '.join(known)}")
        if self.backbone not in BACKBONES:
            raise SettingError(f"backbone: '{self.backbone}' is not one of {', '.join(BACKBONES)}")
        for name in ("dims", "precisions"):
            if not getattr(self, name):
                raise SettingError(f"{name}: give at least one")
        for method in self.methods:
            parse_method(method)
        parse_co_teachers(self.co_teachers)

    def require_below(self, teacher_dim: int) -> None:
        """Check that every student is smaller than its teacher.

        Raises:
            SettingError: One is not.
        """
        for dim in self.dims:
            if not 1 <= dim < teacher_dim:
                raise SettingError(f"dims: {dim} must be from 1 to below the teacher's {teacher_dim}")

    def jobs(self, data: Interactions) -> dict[str, Job]:
        """Run name → what to train; what `training` leaves open suits the size of the data, as in `lowpass distill`."""
        training = {name: value for name, value in self.training.items() if value is not None}
        jobs = {}
        for dim in self.dims:
            for method in self.methods:
                given = {**large_defaults(method, data, has_teacher=True), **training, "dim": dim}
                if learns_lists(method):
                    given["co_teachers"] = self.co_teachers
                else:
                    given.setdefault("max_seconds", self.max_seconds_alone)
                jobs[f"{method}-d{dim}"] = build_job(method, given, backbone=self.backbone)
        return jobs

    def code_bytes(self, teacher_dim: int) -> list[int]:
        """Bytes an item of the students, at which the teacher is product-quantised.

        A byte a number or more of the teacher is left out: int8 takes as many.
        """
        sizes = {"float32": 4, "float16": 2, "int8": 1}
        wanted = {dim * sizes[precision] for dim in self.dims for precision in self.precisions}
        return sorted(size for size in wanted if size < teacher_dim)
