"""kill -9 of the offline jobs at random moments, twenty times each: what was whole before is whole after.

A moment is drawn from the time that a job takes that nobody kills, so that some die before they write and some after.
"""

from __future__ import annotations

import contextlib
import io
import signal
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from shutil import rmtree

import numpy as np
import pytest

import distill.training.trainer
import lowpass
from distill.data.interactions import load_interactions, save_interactions
from distill.run import EMBEDDINGS_FILE, METRICS_FILE, open_run
from distill.training.job import Job
from distill.training.runner import PRELOADED, Training
from distill.training.trainer import TrainingOptions
from export.bundle import ModelRepository, ShardedRepository, open_bundle
from tests.export.toy import toy_interactions, toy_run
from tests.serve.repositories import two_versions

KILLS = 20
COMMANDS = ["distill.commands.data", "export.commands.export", "export.build.publish", "serve.commands.models"]

pytestmark = [pytest.mark.soak, pytest.mark.timeout(300)]


def run_command(*words: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as complaint:
        code = lowpass.main(list(words))
    if code:
        raise SystemExit(complaint.getvalue())


def train_with_a_checkpoint_each_epoch(training: Training) -> None:
    distill.training.trainer.CHECKPOINT_SECONDS = -1.0
    training()


def start(work: Callable[[], object]) -> BaseProcess:
    context = get_context("forkserver")
    context.set_forkserver_preload(["pytest", *PRELOADED, *COMMANDS, __name__])
    process = context.Process(target=work)
    process.start()
    return process


def finish(work: Callable[[], object]) -> float:
    """Let the work end, and return how many seconds it took."""
    started = time.monotonic()
    process = start(work)
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - started


@pytest.fixture(autouse=True, scope="module")
def server() -> None:
    """Start what forks the children, which takes longer than any of them."""
    finish(time.monotonic)


def kill_at_random(work: Callable[[], object], seconds: float, rng: np.random.Generator) -> bool:
    """Kill the work before so many seconds have gone, and say whether it was not at its end."""
    process = start(work)
    time.sleep(rng.uniform(0, seconds))
    process.kill()
    process.join()
    assert process.exitcode in {0, -signal.SIGKILL}
    return process.exitcode != 0


def kill_often(draw_work: Callable[[int], Callable[[], object]], seconds: float, check: Callable[[], object]) -> None:
    rng, killed, number = np.random.default_rng(), 0, 0
    while killed < KILLS:
        killed += kill_at_random(draw_work(number), seconds, rng)
        number += 1
        check()


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_prepare_leaves_the_old_data_or_the_new(tmp_path: Path) -> None:
    source, out = tmp_path / "pairs.csv", tmp_path / "out" / "data"
    pairs = [(user, (user * 7 + step * step) % 50) for user in range(60) for step in range(8)]
    source.write_text("user_id,item_id\n" + "".join(f"u{user},i{item}\n" for user, item in pairs))

    def prepare(seed: int) -> partial[None]:
        words = ["data", "prepare", source, "--out", out, "--split", "random", "--seed", seed]
        return partial(run_command, *map(str, words))

    known = set()

    def check() -> None:
        assert load_interactions(out).fingerprint in known

    for seed in range(2):
        seconds = finish(prepare(seed))
        known.add(load_interactions(out).fingerprint)
    assert len(known) == 2
    kill_often(lambda number: prepare(number % 2), seconds, check)
    finish(prepare(0))
    assert not hidden(out.parent), "nor a draft of the killed"


def test_a_resumed_training_is_bit_for_bit_the_straight_one(tmp_path: Path) -> None:
    save_interactions(toy_interactions(40, 30), tmp_path / "data")
    options = TrainingOptions(epochs=20, batch_size=64, learning_rate=0.01, eval_every=4, patience=20)
    job = Job("bprmf", "scratch", 4, options=options)

    def train(name: str) -> partial[None]:
        return partial(train_with_a_checkpoint_each_epoch, Training(job, tmp_path / "data", tmp_path / name))

    seconds = finish(train("straight"))
    straight, out = tmp_path / "straight", tmp_path / "cut"
    compared = 0

    def check() -> None:
        nonlocal compared
        if not (out / METRICS_FILE).exists():
            return
        assert (out / EMBEDDINGS_FILE).read_bytes() == (straight / EMBEDDINGS_FILE).read_bytes()
        for split in ("validation", "test"):
            assert open_run(out).metrics[split] == open_run(straight).metrics[split]
        compared += 1
        rmtree(out)

    kill_often(lambda _: train("cut"), seconds, check)
    finish(train("cut"))
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in straight.iterdir())
    check()
    assert compared > 1


def test_an_export_is_a_whole_version_or_none(tmp_path: Path) -> None:
    data = toy_interactions(40, 30)
    save_interactions(data, tmp_path / "data")
    toy_run(tmp_path / "run", data, 4)
    repository = ModelRepository(tmp_path / "models")
    words = ["export", tmp_path / "run", "--data", tmp_path / "data", "--repository", repository.root]
    export = partial(run_command, *map(str, words), "--model", "student", "--label", "stable")
    checked: set[str] = set()

    def check() -> None:
        for version in set(repository.versions("student")) - checked:
            open_bundle(repository.resolve("student", version), verify=True)
            checked.add(version)
        assert repository.labels("student")["stable"] in checked

    seconds = finish(export)
    kill_often(lambda _: export, seconds, check)
    finish(export)
    check()
    assert repository.labels("student")["stable"] == repository.versions("student")[-1]
    assert not hidden(repository.root / "student"), "nor a draft of the killed"


def test_an_export_in_shards_leaves_whole_bundles_and_labels_of_whole_versions(tmp_path: Path) -> None:
    data = toy_interactions(40, 30)
    save_interactions(data, tmp_path / "data")
    toy_run(tmp_path / "run", data, 4)
    root = tmp_path / "models"
    words = ["export", tmp_path / "run", "--data", tmp_path / "data", "--repository", root, "--user-shards", 2]
    export = partial(run_command, *map(str, words), "--model", "student", "--label", "stable")
    shards, checked = ShardedRepository(root, 2).shards, set[Path]()

    def check() -> None:
        for shard in shards:
            for version in shard.versions("student"):
                path = shard.resolve("student", version)
                if path not in checked:
                    open_bundle(path, verify=True)
                    checked.add(path)
        labelled = {shard.labels("student")["stable"] for shard in shards}
        for version in labelled:
            assert all(version in shard.versions("student") for shard in shards), "labels move when all are in place"

    seconds = finish(export)
    kill_often(lambda _: export, seconds, check)
    finish(export)
    check()
    (stable,) = {shard.labels("student")["stable"] for shard in shards}
    assert [shard.versions("student")[-1] for shard in shards] == [stable] * 2
    assert not hidden(root), "nor a draft of the killed"
    assert not any(hidden(shard.root / "student") for shard in shards)


def test_a_label_points_where_it_did_or_where_it_is_to(tmp_path: Path) -> None:
    repository = two_versions(tmp_path)

    def label(number: int) -> partial[None]:
        words = ["models", "label", "student", "stable", "12"[number % 2], "--repository", str(tmp_path)]
        return partial(run_command, *words)

    seconds = finish(label(0))
    finish(label(1))

    def check() -> None:
        labels = repository.labels("student")
        assert {labels["stable"], labels["previous"]} == {"1", "2"}

    kill_often(label, seconds, check)
    finish(label(0))
    assert repository.labels("student")["stable"] == "1"
    finish(label(1))
    assert repository.labels("student") == {"stable": "2", "previous": "1"}
    assert not hidden(tmp_path / "student"), "nor a draft of the killed"
