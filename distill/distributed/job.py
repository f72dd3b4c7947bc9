"""One training on many ranks: from a job to a finished run directory, the same that one process writes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch

from distill.backbones import BACKBONES
from distill.distributed.objectives import (
    CandidateObjective,
    FreqDObjective,
    Objective,
    PairwiseObjective,
    World,
    sampled_settings,
)
from distill.distributed.ranks import Ranks
from distill.distributed.shares import Share, read_share
from distill.distributed.table import Lookup, ShardedTable, TableOptimizer, TableSettings
from distill.distributed.teacher import (
    FOLDER,
    RangeFiles,
    filter_rows,
    filtered_teacher,
    remove_range_files,
    top_lists,
)
from distill.distributed.trainer import Destination, ShardedTrainer
from distill.errors import RunError, SettingError
from distill.methods.co_teachers import NONE
from distill.methods.cross_entropy import CrossEntropySettings
from distill.methods.freqd import FreqDSettings, fill_published
from distill.run import ID_FILES, METRICS_FILE, Run, open_run
from distill.storage import write_file
from distill.training.checkpoint import STATE_FILE
from distill.training.job import RANDOM, Job, describe
from distill.training.teacher import score_temperature

BACKBONE = "bprmf"
METHODS = ("scratch", "freqd", "ce")


@dataclass(frozen=True)
class ShardedOptions:
    """What sharded training adds to a job.

    Attributes:
        table_optimizer: Of the table: "adagrad", row-wise, or "sgd".
        table_learning_rate: Its learning rate; the job's is that of a projector.
        checkpoint_seconds: From one checkpoint to the next, at the least.
    """

    table_optimizer: TableOptimizer = "adagrad"
    table_learning_rate: float = 0.1
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.table_learning_rate < math.inf:
            raise SettingError(f"table_learning_rate: {self.table_learning_rate} is not above 0 and finite")
        if not 0 <= self.checkpoint_seconds < math.inf:
            raise SettingError(f"checkpoint_seconds: {self.checkpoint_seconds} must be 0 or more, and finite")


def run_sharded_job(
    job: Job,
    options: ShardedOptions,
    data: Path,
    out: Path,
    ranks: Ranks,
    *,
    teacher: Path | None = None,
    resume: bool = False,
) -> Mapping[str, Any]:
    """Train together with the other ranks, and write the run directory.

    Args:
        job: What to train.
        options: Of the sharding.
        data: A data directory with a validation split.
        out: The run directory, on a disk that all ranks see; must not hold a finished run.
        ranks: Who train together.
        teacher: A run on the same data, for a method that learns from one.
        resume: Continue from the checkpoint in `out`, where there is one.

    Returns:
        What `metrics.json` holds.

    Raises:
        RunError: `out` is taken, or the teacher belongs to other data.
        SettingError: A setting is none that a sharded training has, or there is nothing to validate on.
    """
    job = supported_job(job)
    _require_free(out, ranks, resume=resume)
    share = read_share(data, ranks)
    run = None if teacher is None else open_run(teacher)
    if run is not None and run.config.get("data", {}).get("fingerprint") != share.fingerprint:
        raise RunError(f"{run.path}: was trained on other data than '{share.name}'; give the run of this data")
    lookup: Lookup = "bags" if job.method == "freqd" else "rows"
    settings = TableSettings(lookup, options.table_optimizer, options.table_learning_rate)
    table = ShardedTable(share.num_entities, job.dim, ranks, settings)
    world = World(share, table, ranks, job.options.batch_size, job.options.weight_decay)
    config = ranks.from_first(_describe(job, options, share, run) if ranks.is_first else {})
    files = RangeFiles(out / FOLDER, share, {**config, "training": None}, ranks.is_first)
    torch.manual_seed(job.options.seed)
    objective = _build_objective(job, world, run, files)
    destination = Destination(out, config, options.checkpoint_seconds)
    trainer = ShardedTrainer(objective, job.options, options.table_learning_rate, destination)
    if not trainer.evaluation.has("validation"):
        raise SettingError(f"data: '{share.name}' has no validation interactions to stop on; prepare it with a split")
    if resume and ranks.from_first((out / STATE_FILE).is_file()):
        trainer.resume()
    for name in ID_FILES.values() if ranks.is_first else ():
        write_file(out / name, (data / name).read_bytes())
    metrics = trainer.fit()
    remove_range_files(out, ranks)
    return metrics


def supported_job(job: Job) -> Job:
    """Look at a job's settings before anything is read, and fill in those that sharding settles.

    Raises:
        SettingError: One is none that a sharded training has.
    """
    if job.backbone != BACKBONE:
        raise SettingError(f"backbone: '{job.backbone}' needs the whole table in each step; give {BACKBONE}")
    if job.method not in METHODS:
        raise SettingError(f"method: '{job.method}' is not sharded; give one of {', '.join(METHODS)}")
    if job.continue_from is not None:
        raise SettingError("continue_from: a sharded training starts from nothing; leave it out")
    if job.start != RANDOM:
        raise SettingError(f"start: '{job.start}' is not sharded; leave it out")
    if job.co_teachers != NONE:
        raise SettingError("co_teachers: a blend ranks the whole catalogue at one place; give --co-teachers none")
    if job.options.keep_checkpoints:
        raise SettingError("keep_checkpoints: a sharded training keeps no earlier states; leave it out")
    (settings,) = job.settings or (None,)
    if isinstance(settings, CrossEntropySettings):
        _require(settings, {"base_weight": 0.0, "alpha": 0.0})
        return replace(job, settings=(sampled_settings(settings),))
    if isinstance(settings, FreqDSettings):
        filled = fill_published(settings)
        _require(
            filled,
            {"variant": "bipartite", "order": "filter-first", "keep_prob": 1.0, "teacher_rank": None, "step_share": 1.0,
             "teacher_precision": "float32", "whole_histories": False, "preference_weight": 0.0},
        )  # fmt: skip
        if len(filled.coefficients or ()) > 2:
            raise SettingError("filter: a sharded filter reaches direct neighbours alone; give --filter linear")
    return job


def _require(settings: Any, only: Mapping[str, Any]) -> None:
    for name, value in only.items():
        if getattr(settings, name, value) != value:
            raise SettingError(f"{name}: {getattr(settings, name)!r} is not sharded; leave it at {value!r}")


def _require_free(out: Path, ranks: Ranks, *, resume: bool) -> None:
    """Look at the run directory once for all ranks, before any of them writes."""
    flaw = ""
    if ranks.is_first:
        if (out / METRICS_FILE).exists():
            flaw = "a finished run is there; give another --out, or delete it first"
        elif (out / STATE_FILE).exists() and not resume:
            flaw = "an unfinished run is there; continue it with --resume, or delete it first"
        elif out.exists() and not out.is_dir():
            flaw = "is a file; give a directory for --out"
        else:
            out.mkdir(parents=True, exist_ok=True)
    if flaw := ranks.from_first(flaw):
        raise RunError(f"{out}: {flaw}")


def _build_objective(job: Job, world: World, teacher: Run | None, files: RangeFiles) -> Objective:
    if job.method == "scratch":
        return PairwiseObjective(world)
    if teacher is None:
        raise SettingError(f"teacher: method '{job.method}' distills from one; give --teacher RUN")
    share = world.share
    scale = (BACKBONES[job.backbone].score_temperature / score_temperature(teacher)) ** 0.5
    (settings,) = job.settings or ()
    if isinstance(settings, FreqDSettings):
        filled = fill_published(settings)
        filtered = filter_rows(share, filled.coefficients or (1.0,))
        return FreqDObjective(world, filled, filtered, filtered_teacher(files, filtered, teacher, scale))
    hidden = share.train if settings.hide_train else sp.csr_matrix(share.train.shape, dtype=np.float32)
    lists = top_lists(files, teacher, hidden, settings.num_top, scale)
    return CandidateObjective(world, settings, lists, hidden)


def _describe(job: Job, options: ShardedOptions, share: Share, teacher: Run | None) -> dict[str, Any]:
    """The run's `config.json`: that of one process, and what is sharded; on how many ranks changes rounding alone."""
    sharded = {name: value for name, value in asdict(options).items() if name != "checkpoint_seconds"}
    return {**describe(job, share, teacher), "sharded": sharded}
