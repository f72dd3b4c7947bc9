"""Two ranks beside one process: what torchrun starts; the first rank writes what was found as JSON.

    torchrun --standalone --nproc-per-node 2 -m tests.distill.distributed.two_ranks DATA TEACHER OUT [DIM BATCH]

Each objective takes one step of SGD on both ranks; the first rank takes the step of one process on the ranks' batches
together, with the classes that a training in one process uses, and compares tables. Bytes are counted where
collectives are called. That is all where DIM and BATCH are given.

Else a checkpoint is left in OUT, and beside it the table that it holds, which the first rank reads alone and compares;
then follow two trainings, in OUT/run and, by the program, in OUT/disturbed/run, during which a rank may be killed: what
torchrun starts again does only the latter. All is one start of the ranks, which costs more than all that they do.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import torch
from torch import nn

import lowpass
from distill.backbones.bprmf import BPRMF
from distill.backbones.sampling import Batch
from distill.data.interactions import Interactions, load_interactions
from distill.distributed import checkpoint
from distill.distributed.job import ShardedOptions, run_sharded_job
from distill.distributed.objectives import (
    CandidateObjective,
    Candidates,
    FreqDObjective,
    Objective,
    PairwiseObjective,
    World,
)
from distill.distributed.ranking import Evaluation
from distill.distributed.ranks import Ranks, open_ranks
from distill.distributed.shares import read_share
from distill.distributed.table import Lookup, ShardedTable, TableSettings
from distill.distributed.teacher import RangeFiles, filter_rows, filtered_teacher, top_lists
from distill.distributed.trainer import Destination, ShardedTrainer
from distill.evaluation.protocol import Protocol, evaluate_scores
from distill.methods.base import Step, Teacher
from distill.methods.cross_entropy import CrossEntropy, CrossEntropySettings
from distill.methods.freqd import FreqD, FreqDSettings, build_graph_filter, fill_published
from distill.run import open_run
from distill.training.job import build_job
from distill.training.trainer import TrainingOptions
from tests.distill.distributed.traffic import counted

RATE, STD = 0.05, 0.5
SETTINGS = FreqDSettings(projector="linear", loss="cosine", distillation_weight=0.5)
RESPONSES = CrossEntropySettings(num_top=10)
GIVEN = {"dim": 8, "epochs": 9, "eval_every": 3, "patience": 9, "batch_size": 64}
"""Of the undisturbed training in `OUT/run`."""
FEW = 12
"""Shared negatives of the second candidate step."""


OneStep = Callable[[nn.Parameter, Any, Any], torch.Tensor]


class WatchedTable(ShardedTable):
    """Notes what it was asked last: entries, those of other ranks' rows, and rows or bags."""

    asked: Mapping[str, int] = {}

    def rows(self, ids: torch.Tensor) -> torch.Tensor:
        self._note(ids, len(ids))
        return super().rows(ids)

    def bags(self, ids: torch.Tensor, weights: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        self._note(ids, len(lengths))
        return super().bags(ids, weights, lengths)

    def _note(self, ids: torch.Tensor, answers: int) -> None:
        foreign = (ids < self.first) | (ids >= self.first + len(self.local))
        self.asked = {"entries": len(ids), "foreign": int(foreign.sum()), "answers": answers}


class Trial:
    """One objective on a table of its own, and the step that one process would take."""

    def __init__(self, folders: tuple[Path, Path, Path], size: tuple[int, int], ranks: Ranks) -> None:
        self.data, self.teacher, self.out = folders
        (self.dim, self.batch), self.ranks = size, ranks
        self.share, self.run = read_share(self.data, ranks), open_run(self.teacher)
        self.files = RangeFiles(self.out / "ranks", self.share, {}, shown=False)

    def world(self, lookup: Lookup) -> World:
        table = WatchedTable(self.share.num_entities, self.dim, self.ranks, TableSettings(lookup, "sgd", RATE))
        return World(self.share, table, self.ranks, self.batch)

    def pairwise(self) -> Objective:
        return PairwiseObjective(self.world("rows"))

    def freqd(self) -> Objective:
        filled = fill_published(SETTINGS)
        filtered = filter_rows(self.share, filled.coefficients or ())
        targets = filtered_teacher(self.files, filtered, self.run, 1.0)
        return FreqDObjective(self.world("bags"), filled, filtered, targets)

    def candidates(self, num_negatives: int) -> Objective:
        lists = top_lists(self.files, self.run, self.share.train, RESPONSES.num_top, 1.0)
        settings = replace(RESPONSES, num_negatives=num_negatives, num_hard=0)
        return CandidateObjective(self.world("rows"), settings, lists, self.share.train)

    def compare(self, objective: Objective, one_process: OneStep, *, scaled: bool = True) -> dict[str, Any]:
        """Take the step on both sides; the largest difference of the tables and projectors, and what was sent."""
        table, ranks = cast("WatchedTable", objective.world.table), self.ranks
        trainer = ShardedTrainer(objective, TrainingOptions(batch_size=self.batch), RATE, Destination(self.out, {}))
        table.draw(1, STD)
        trained = list(objective.parameters())
        if trained:
            trainer.training = checkpoint.Training(table, objective, torch.optim.SGD(trained, lr=RATE))
        before, projectors = torch.cat(list(table.blocks(50))), [value.detach().clone() for value in trained]
        batch = next(iter(objective.epoch(np.random.default_rng([3, ranks.rank]), np.random.default_rng(3))))
        with counted() as sent:
            if scaled:
                trainer.train_step(batch)
            else:
                torch.autograd.backward(objective.loss(batch))
        after, moved = torch.cat(list(table.blocks(50))), [value.detach().clone() for value in trained]
        batches, bytes_sent, asked = ranks.gather(batch), ranks.gather(dict(sent)), ranks.gather(table.asked)
        if not ranks.is_first:
            return {}
        for parameter, value in zip(trained, projectors, strict=True):
            parameter.data, parameter.grad = value, None
        whole = nn.Parameter(before)
        torch.autograd.backward(one_process(whole, batches, objective))
        steps = [(parameter.data, RATE * cast("torch.Tensor", parameter.grad)) for parameter in [whole, *trained]]
        errors = [(start - step - end).abs().max() for (start, step), end in zip(steps, [after, *moved], strict=True)]
        return {
            "error": float(max(errors)),
            "step": float(steps[0][1].abs().max()),
            "sent": bytes_sent,
            "asked": asked,
            "told": objective.most_per_rank if trained else 0,
            "projectors": 4 * sum(value.numel() for value in trained),
        }


def whole_batch(share_starts: list[int], batches: list[Batch]) -> Batch:
    users = torch.cat([batch.users + start for start, batch in zip(share_starts, batches, strict=True)])
    return Batch(users, torch.cat([b.positives for b in batches]), torch.cat([b.negatives for b in batches]))


class OneProcess:
    """The steps of one process, by the classes that train there."""

    def __init__(self, data: Interactions, teacher: Path, starts: list[int]) -> None:
        self.data, self.starts = data, starts
        run = open_run(teacher, data)
        features = torch.cat([torch.from_numpy(run.user_embeddings), torch.from_numpy(run.item_embeddings)])
        self.teacher = Teacher(features, data.num_users)

    def student(self, table: nn.Parameter) -> BPRMF:
        student = BPRMF(self.data.num_users, self.data.num_items, table.shape[1])
        student.table = table
        return student

    def pairwise(self, table: nn.Parameter, batches: list[Batch], _: nn.Module) -> torch.Tensor:
        return self.student(table).base_loss(whole_batch(self.starts, batches), table)

    def freqd(self, table: nn.Parameter, batches: list[Batch], objective: nn.Module) -> torch.Tensor:
        student, batch = self.student(table), whole_batch(self.starts, batches)
        filled = fill_published(SETTINGS)
        method = FreqD(filled, student, self.teacher, build_graph_filter(filled, self.data))
        method._targets = method._targets.half().float()
        method._target_norms = method._targets.square().sum(dim=1)
        method.user_projector, method.item_projector = objective.user_projector, objective.item_projector  # type: ignore[assignment]
        return student.base_loss(batch, table) + method.distillation_loss(self.step(batch, table))

    def candidates(self, table: nn.Parameter, batches: list[Candidates], _: nn.Module) -> torch.Tensor:
        """The softmax over the whole catalogue."""
        users = torch.cat([batch.users + start for start, batch in zip(self.starts, batches, strict=True)])
        method = CrossEntropy(RESPONSES, self.teacher, self.data.train)
        return method.distillation_loss(self.step(Batch(users, users, users), table))

    def few_candidates(self, table: nn.Parameter, batches: list[Candidates], _: nn.Module) -> torch.Tensor:
        """The softmax over lists and a sample, a user at a time."""
        method = CrossEntropy(RESPONSES, self.teacher, self.data.train)
        users = torch.cat([batch.users + start for start, batch in zip(self.starts, batches, strict=True)])
        seen = self.data.train.toarray() > 0
        loss = table.new_zeros(())
        items, log_weights = batches[0].sample.items, batches[0].sample.log_weights
        for user in users.tolist():
            listed, wanted = method._items[user], method._probabilities[user]
            counts = torch.tensor([i not in listed.tolist() and not seen[user, i] for i in items.tolist()])
            scores = table[self.data.num_users :] @ table[user]
            rest = torch.exp(scores[items[counts]] + log_weights[counts]).sum()
            logs = scores[listed] - torch.log(torch.exp(scores[listed]).sum() + rest)
            loss = loss + (wanted * (torch.log(wanted) - logs)).sum()
        return loss

    def step(self, batch: Batch, table: nn.Parameter) -> Step:
        return Step(batch, table, table, torch.Generator())


def trained_trainer(trial: Trial) -> ShardedTrainer:
    """A FreqD training with an optimiser that has a state, for the table and for the projectors."""
    filled = fill_published(SETTINGS)
    filtered = filter_rows(trial.share, filled.coefficients or ())
    targets = filtered_teacher(trial.files, filtered, trial.run, 1.0)
    table = ShardedTable(trial.share.num_entities, trial.dim, trial.ranks, TableSettings("bags"))
    objective = FreqDObjective(World(trial.share, table, trial.ranks, trial.batch), filled, filtered, targets)
    return ShardedTrainer(
        objective, TrainingOptions(batch_size=trial.batch), 0.1, Destination(trial.out, {"setting": 1})
    )


def contents(trainer: ShardedTrainer, ranks: Ranks) -> dict[str, Any]:
    """All that a checkpoint keeps, whole, on the first rank."""
    found = {"table": torch.cat(list(trainer.table.blocks(50))).numpy()}
    state = trainer.training.state()
    sharded = {"table.momentum1": state.pop("table.momentum1")}
    state.pop("table")
    for name, tensor in sharded.items():
        (shard,) = tensor.local_shards()
        found[name] = np.concatenate(ranks.gather(shard.tensor.numpy()))
    return found | {name: value.numpy() for name, value in state.items()}


def leave_checkpoint(trial: Trial) -> dict[str, Any]:
    """Train an epoch and save it, and all that it should hold; then compare the quality with one process's."""
    trainer = trained_trainer(trial)
    trainer.train_epoch()
    trainer.progress.best_epoch = 0
    trainer.save()
    whole = contents(trainer, trial.ranks)
    if trial.ranks.is_first:
        np.savez(trial.out / "contents.npz", **whole)
    sampled = Evaluation(trial.share, trainer.table, trial.ranks, eval_users=20)
    found: dict[str, Any] = {"reports": compare_reports(trial, trainer), "sampled": sampled.report("test").as_dict()}
    trainer.table.draw(5, 1.0)
    trainer.table.local.round_()
    return found | {"reports of ties": compare_reports(trial, trainer)}


def compare_reports(trial: Trial, trainer: ShardedTrainer) -> list[dict[str, Any]]:
    """What two ranks and one process find of a table's quality."""
    report = trainer.evaluation.report("validation").as_dict()
    table = torch.cat(list(trainer.table.blocks(50)))
    if not trial.ranks.is_first:
        return []
    data = load_interactions(trial.data)
    users, items = table[: data.num_users], table[data.num_users :]
    wanted = evaluate_scores(lambda rows: users[rows] @ items.T, data, Protocol(split="validation"))
    return [report, wanted.as_dict()]


def read_checkpoint(trial: Trial) -> dict[str, Any]:
    """Load what was left into a training that was drawn otherwise; name what differs from what was saved."""
    trainer = trained_trainer(trial)
    trainer.table.draw(77, STD)
    trainer.resume()
    held = contents(trainer, trial.ranks)
    if not trial.ranks.is_first:
        return {}
    saved = np.load(trial.out / "contents.npz", allow_pickle=False)
    differ = [name for name in saved.files if not np.array_equal(saved[name], held[name])]
    return {"names": sorted(saved.files), "differ": differ, "epoch": trainer.progress.epoch}


def take_steps(trial: Trial) -> dict[str, Any]:
    """Compare a step of each objective, and what the ranks hold."""
    one = OneProcess(load_interactions(trial.data), trial.teacher, trial.ranks.gather(trial.share.users.start))
    table = ShardedTable(trial.share.num_entities, trial.dim, trial.ranks, TableSettings())
    return {
        "bpr": trial.compare(trial.pairwise(), one.pairwise),
        "bpr, loss not scaled": trial.compare(trial.pairwise(), one.pairwise, scaled=False),
        "freqd": trial.compare(trial.freqd(), one.freqd),
        "ce, all items": trial.compare(trial.candidates(trial.share.num_items), one.candidates),
        "ce, few items": trial.compare(trial.candidates(FEW), one.few_candidates),
        "memory": {
            "ranks": trial.ranks.gather(table.bytes),
            "whole": 4 * (trial.dim + 1) * trial.share.num_entities,
        },
    }


def train_undisturbed(data: Path, teacher: Path, out: Path) -> None:
    """Do all that is done once."""
    with open_ranks("cpu") as ranks:
        trial = Trial((data, teacher, out), (8, 64), ranks)
        found = take_steps(trial)
        found["checkpoint"] = leave_checkpoint(trial)
        options = ShardedOptions(checkpoint_seconds=1e9)
        run_sharded_job(build_job("freqd", GIVEN), options, data, out / "run", ranks, teacher=teacher)
        ranks.gather(None)
        if ranks.is_first:
            (out / "found.json").write_text(json.dumps(found))


def read_alone(data: Path, teacher: Path, out: Path) -> None:
    """Let the first rank be the only one, and read what two have saved."""
    with mock.patch.dict(os.environ, {"WORLD_SIZE": "1"}), open_ranks("cpu") as alone:
        read = read_checkpoint(Trial((data, teacher, out), (8, 64), alone))
    (out / "read.json").write_text(json.dumps({**read, "ranks": alone.size}))


def train_by_program(data: Path, teacher: Path, out: Path) -> None:
    """Train what `train_undisturbed` did, with a checkpoint after each epoch."""
    words = ["distill", str(data), "--teacher", str(teacher), "--out", str(out / "disturbed" / "run")]
    settings = [word for name, value in GIVEN.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    words += ["--method", "freqd", "--sharded", "--checkpoint-seconds", "0", *settings]
    raise SystemExit(lowpass.main(words))


def main(data: Path, teacher: Path, out: Path, *size: int) -> None:
    torch.set_num_threads(1)
    if size:
        with open_ranks("cpu") as ranks:
            found = take_steps(Trial((data, teacher, out), (size[0], size[1]), ranks))
            if ranks.is_first:
                (out / "found.json").write_text(json.dumps(found))
        return
    if not int(os.environ["TORCHELASTIC_RESTART_COUNT"]):
        train_undisturbed(data, teacher, out)
        if os.environ["RANK"] == "0":
            read_alone(data, teacher, out)
    train_by_program(data, teacher, out)


if __name__ == "__main__":
    data_folder, teacher_run, destination = map(Path, sys.argv[1:4])
    main(data_folder, teacher_run, destination, *map(int, sys.argv[4:]))
