"""The sections of a spec, and the defaults that stand where it says nothing.

Example:
    name = "shop"
    [data]
    source = "interactions.parquet"
    [teacher]
    dim = 400
    [publish]
    repository = "models"
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass as checked

from distill.data.prepare import PrepareOptions
from distill.data.readers import ColumnNames
from distill.evaluation.drift import LEAST_OVERLAP
from distill.training.job import RECOMMENDED_METHOD, Job, build_job
from export.build.publish import ExportOptions
from export.bundle import STABLE

CLOSED = ConfigDict(extra="forbid")
OFF = "off"
Bound = float | Literal["off"]

IMPORT = "import"
"""The table inside `teacher` that names embeddings from outside; a keyword of Python, so the field is `imported`."""
CONTINUE = "continue"
"""Likewise; the field is `continued`."""
CONTINUE_FROM = "continue_from"
"""The flat setting that takes the run to go on from."""
TEACHER_DIM, STUDENT_DIM = 64, 20
"""As `lowpass train` and `lowpass distill` have them."""


@checked(frozen=True, config=CLOSED)
class DataSpec:
    """Where interactions are, and how they are prepared.

    Attributes:
        source: A file, a folder of files, or a data directory, which is prepared already.
        name: Of the data set; the job's when empty.
        format: A key of `READERS`; told by the name when None.
        items: File of item titles and categories.
        options: Fields of `PrepareOptions`.
        columns: Fields of `ColumnNames`.
    """

    source: Path
    name: str = ""
    format: str | None = None
    items: Path | None = None
    options: PrepareOptions = field(default_factory=PrepareOptions)
    columns: ColumnNames = field(default_factory=ColumnNames)

    @property
    def is_prepared(self) -> bool:
        """Whether the source is a data directory."""
        return (self.source / "dataset.json").is_file()


@checked(frozen=True, config=CLOSED)
class ImportSpec:
    """A teacher's embeddings, as `lowpass train --from-embeddings` takes them.

    Attributes:
        users: `.npy` or Parquet.
        items: Likewise.
        users_ids: Ids of the rows of a `.npy`.
        items_ids: Likewise.
        name: Recorded as the backbone.
    """

    users: Path
    items: Path
    users_ids: Path | None = None
    items_ids: Path | None = None
    name: str = "imported"

    @property
    def files(self) -> dict[str, Path]:
        """Field → file, of those that are given."""
        named = {"users": self.users, "items": self.items, "users_ids": self.users_ids, "items_ids": self.items_ids}
        return {name: path for name, path in named.items() if path is not None}


@checked(frozen=True, config=CLOSED)
class ModelSpec:
    """A teacher or a student that is trained here.

    Attributes:
        method: A method or a composition; "scratch" for a teacher.
        backbone: Name in `BACKBONES`.
        backbone_settings: Of the backbone.
        continued: Whether training goes on from the version that the label points to, where this job made it.
        imported: For a teacher: its embeddings from outside, in place of a training.
        settings: Flat settings of the method and the training, as `build_job` takes them.
    """

    method: str = "scratch"
    backbone: str = "bprmf"
    backbone_settings: dict[str, Any] = field(default_factory=dict)
    continued: bool = False
    imported: ImportSpec | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def build(self, more: Mapping[str, Any] | None = None) -> Job:
        """The training, with further flat settings below those of the spec.

        With `continue_from` among them the run that is gone on from takes the place of `start`, which is the
        first run's.

        Raises:
            SettingError: A name is unknown, or a value has the wrong type or is out of range.
        """
        given = {**(more or {}), **self.settings}
        if CONTINUE_FROM in given:
            given.pop("start", None)
        return build_job(self.method, given, backbone=self.backbone, backbone_settings=self.backbone_settings)


@checked(frozen=True, config=CLOSED)
class PublishSpec:
    """Where the bundle goes.

    Attributes:
        repository: Root of the model repository.
        model: Name in it; the job's when empty.
        label: What is to point to a version that passes the gate.
    """

    repository: str
    model: str = ""
    label: str = STABLE


@checked(frozen=True, config=CLOSED)
class GateSpec:
    """Bounds that a new version must keep, each a number or "off".

    Attributes:
        kept_ndcg: Least share of the teacher's test NDCG@10.
        kept_recall: Least share of its test Recall@20.
        worse_than_stable: Largest loss of NDCG@10 against the labelled version, as a share of that version's, that the
            paired test may be sure of.
        list_overlap: Least share of users' best items that the labelled version has among theirs, too.
        index_recall: Least share of the exact top 20 that answers have.
        bytes_per_item: Largest index file, bytes an item.
        p99_ms: Longest answer but one in a hundred, on this machine, ms.
        lost_users: Largest share of the labelled version's users that the new one does not know.
        lost_items: The same of items.
    """

    kept_ndcg: Bound = 0.9
    kept_recall: Bound = 0.9
    worse_than_stable: Bound = 0.01
    list_overlap: Bound = LEAST_OVERLAP
    index_recall: Bound = 0.95
    bytes_per_item: Bound = 512.0
    p99_ms: Bound = 20.0
    lost_users: Bound = 0.05
    lost_items: Bound = 0.05


@checked(frozen=True, config=CLOSED)
class MetricsSpec:
    """Where metrics for Prometheus go.

    Attributes:
        textfile: A file that the node exporter's textfile collector reads.
        pushgateway: URL of a Pushgateway.
    """

    textfile: Path | None = None
    pushgateway: str | None = None


@checked(frozen=True, config=CLOSED)
class MlflowSpec:
    """An MLflow server that each run is recorded at.

    Attributes:
        uri: Its URL.
        experiment: Made where it is not there; the job's name when empty.
    """

    uri: str
    experiment: str = ""


@dataclass(frozen=True)
class JobSpec:
    """A whole spec; all paths are absolute.

    Attributes:
        path: The file.
        name: Of the job: its folder, and a label of its metrics.
        directory: Where folders of jobs are.
        keep_runs: How many runs keep their record.
        export: How the student is exported.
    """

    path: Path
    name: str
    directory: Path
    keep_runs: int
    data: DataSpec
    teacher: ModelSpec
    student: ModelSpec
    export: ExportOptions
    publish: PublishSpec
    gate: GateSpec = field(default_factory=GateSpec)
    metrics: MetricsSpec = field(default_factory=MetricsSpec)
    mlflow: MlflowSpec | None = None

    @property
    def folder(self) -> Path:
        """The job's own folder."""
        return self.directory / self.name

    @property
    def model(self) -> str:
        """The model's name in the repository."""
        return self.publish.model or self.name


STUDENT = {"method": RECOMMENDED_METHOD}
"""What a student is where its section does not say."""
MODEL_FIELDS = {"method", "backbone", "backbone_settings", CONTINUE, IMPORT}
"""Keys of `teacher` and `student` that are no setting of a method or a training."""
EXPORT_FIELDS = {field.name for field in fields(ExportOptions)} - {"version", "label"}
