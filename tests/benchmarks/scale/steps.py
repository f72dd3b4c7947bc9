"""The steps: each runs the real command line in a folder of its size and says what it took and how good the result is.

A step of training is told by what an epoch takes, in processor seconds, by the run's own count; everything else by the
whole command. Commands are called as a user would type them, with defaults: those are what is measured.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.scale.bars import SIZES, Size
from tests.benchmarks.scale.children import LOWPASS, Took, cores, one_core, run
from tests.serve.processes import serving

STUDENT_DIM, TEACHER_DIM = 20, 64


@dataclass(frozen=True)
class Measured:
    """What a step took.

    Attributes:
        seconds: What its bar bounds: processor seconds of an epoch or of the command.
        peak_bytes: Most memory resident at once.
        quality: Recall@20 on test, where there is one.
        more: Further numbers.
    """

    seconds: float
    peak_bytes: int
    quality: float | None = None
    more: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """The folder of one size.

    Attributes:
        folder: Holds data, runs, bundles and results.
        size: Its shape.
        epochs: How many a training is measured over.
        limit: Seconds by the clock that a command may take.
    """

    folder: Path
    size: Size
    epochs: int
    limit: float

    @classmethod
    def of(cls, root: Path, name: str, epochs: int, limit: float) -> Place:
        """Return the place of a size of that name."""
        return cls(root / name, SIZES[name], epochs, limit)

    def path(self, name: str) -> str:
        """Return a path inside."""
        return str(self.folder / name)

    def fresh(self, name: str) -> str:
        """Return a path inside at which there is nothing any longer."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        return self.path(name)

    def run(self, step: str, *words: str, pinned: bool = True) -> Took:
        """Run a command, on one core unless said otherwise; what it says on stderr goes to `results/STEP.log`."""
        log = self.folder / "results" / f"{step}.log"
        return run(words, log, core=cores()[0] if pinned else None, limit=self.limit)

    def lowpass(self, step: str, *words: str, pinned: bool = True) -> Took:
        """Run `lowpass … --json`."""
        return self.run(step, *LOWPASS, *words, "--json", pinned=pinned)


def measure_synth(place: Place) -> Measured:
    """`lowpass data synth`."""
    size = place.size
    words = ("--users", size.users, "--items", size.items, "--interactions", size.mean, "--clusters", size.clusters)
    took = place.lowpass("synth", "data", "synth", place.path("data"), *map(str, words), "--breadth", str(size.breadth))
    return Measured(took.processor_seconds, took.peak_bytes, more=took.answer["counts"])


def measure_prepare(place: Place) -> Measured:
    """`lowpass data prepare` of Parquet, 5-core, split by time."""
    raw = place.folder / "raw.parquet"
    if not raw.is_file():
        place.run("raw", sys.executable, "-m", "tests.benchmarks.scale.raw", place.path("data"), str(raw))
    took = place.lowpass(
        "prepare", "data", "prepare", str(raw), "--out", place.fresh("prepared"), "--user-min", "5", "--item-min", "5"
    )
    return Measured(took.processor_seconds, took.peak_bytes, more=took.answer["counts"])


def measure_bprmf(place: Place) -> Measured:
    """An epoch of `lowpass train`, d = 64."""
    words = ("train", place.path("data"), "--dim", str(TEACHER_DIM), "--epochs", str(place.epochs))
    return _of_an_epoch(place.lowpass("bprmf", *words, "--out", place.fresh("bprmf")))


def measure_import(place: Place) -> Measured:
    """`lowpass train --from-embeddings`, 256 numbers in float16, with quality on validation and test."""
    if not (place.folder / "teacher").is_dir():
        place.run("truth", sys.executable, "-m", "tests.benchmarks.scale.teacher", place.path("data"),
                  place.path("teacher"))  # fmt: skip
    words = ("--from-embeddings", place.path("teacher/users.npy"), place.path("teacher/items.npy"))
    took = place.lowpass("import", "train", place.path("data"), *words, "--out", place.fresh("imported"))
    return Measured(took.processor_seconds, took.peak_bytes, took.answer["test"]["Recall@20"])


def measure_recipe(place: Place) -> Measured:
    """An epoch of `lowpass distill`, d = 20; `start_seconds` has the lists and who teaches beside the teacher."""
    words = ("distill", place.path("data"), "--teacher", place.path("imported"), "--dim", str(STUDENT_DIM))
    took = place.lowpass("recipe", *words, "--epochs", str(place.epochs), "--out", place.fresh("student"))
    return _of_an_epoch(took)


def measure_export(place: Place) -> Measured:
    """`lowpass export` of the student."""
    words = ("export", place.path("student"), "--data", place.path("data"), "--model", "student")
    took = place.lowpass("export", *words, "--repository", place.fresh("models"))
    index = took.answer["index"]
    more = {"index": index["factory"], "index_recall": index["ann_recall"], "index_bytes": index["bytes_per_item"]}
    return Measured(took.processor_seconds, took.peak_bytes, took.answer["quality"]["recall@20"], more)


def measure_serve(place: Place) -> Measured:
    """`lowpass serve` of the student: processor seconds until it is ready, its memory, and what an answer takes."""
    folder = place.folder / "server"
    folder.mkdir(exist_ok=True)
    (folder / "ready.json").unlink(missing_ok=True)
    first, last = cores()[0], cores()[-1]
    words = ("--repository", place.path("models"), "--model", "student", "--threads", "1", "--drain-wait", "0")
    with serving(folder, *words, before=one_core(first)) as server:
        process = psutil.Process(server.process.pid)
        start, resident = _processor_seconds(process), _resident(process)
        bundle = str(next((place.folder / "models" / "student").glob("[0-9]*")))
        asking = ("bench", "--target", server.address, "--bundle", bundle, "--seconds", "2", "--json")
        log = place.folder / "results" / "serve.log"
        one = run([*LOWPASS, *asking, "--windows", "5"], log, core=last, limit=place.limit).answer
        before, answered = _processor_seconds(process), _count_answers(server.scrape())
        run([*LOWPASS, *asking, "--windows", "3", "--in-flight", "32"], log, core=last, limit=place.limit)
        spent = _processor_seconds(process) - before
        answers = _count_answers(server.scrape()) - answered
        peak = _resident(process)
    seen = next(iter(one["targets"].values()))
    more = {"resident_bytes": resident, "p50_ms": seen["p50_ms"], "p99_ms": seen["p99_ms"]}
    return Measured(start, max(peak, resident), more=more | {"answers_a_core": round(answers / spent, 1)})


def measure_road(place: Place) -> Measured:
    """From the imported teacher to an answer over gRPC: training to its end, by the clock, on all cores."""
    started = time.monotonic()
    data, student, models = place.path("data"), place.fresh("road"), place.fresh("road-models")
    words = ("--teacher", place.path("imported"), "--dim", str(STUDENT_DIM), "--out", student)
    took = [place.lowpass("road", "distill", data, *words, pinned=False)]
    quality = took[0].answer["test"]["Recall@20"]
    words = ("--data", data, "--repository", models, "--model", "student")
    took.append(place.lowpass("road-export", "export", student, *words, pinned=False))
    folder = place.folder / "road-server"
    folder.mkdir(exist_ok=True)
    (folder / "ready.json").unlink(missing_ok=True)
    with serving(folder, "--repository", models) as server:
        first = f"u{1:0{max(4, len(str(place.size.users)))}d}"
        place.lowpass("road-query", "query", "--target", server.address, "--user", first, pinned=False)
    return Measured(time.monotonic() - started, max(each.peak_bytes for each in took), quality)


@dataclass(frozen=True)
class Step:
    """A step of the road.

    Attributes:
        measure: Runs it.
        makes: What it leaves in the folder; a later step does not run it again where that is there.
        needs: Steps whose result it takes.
        title: For the table.
    """

    measure: Callable[[Place], Measured]
    makes: str
    needs: tuple[str, ...]
    title: str


STEPS = {
    "synth": Step(measure_synth, "data", (), "data synth"),
    "prepare": Step(measure_prepare, "prepared", ("synth",), "data prepare, Parquet"),
    "bprmf": Step(measure_bprmf, "bprmf", ("synth",), "BPRMF epoch, d = 64"),
    "import": Step(measure_import, "imported", ("synth",), "import-teacher, 256 numbers"),
    "recipe": Step(measure_recipe, "student", ("import",), "recipe's epoch, d = 20"),
    "export": Step(measure_export, "models", ("recipe",), "export of a student"),
    "serve": Step(measure_serve, "server", ("export",), "serve, until ready"),
    "road": Step(measure_road, "road-models", ("import",), "imported teacher to an answer, clock"),
}
"""In the order of the road; `road` takes hours and runs only where it is asked for."""


def count_interactions(folder: Path) -> int:
    """Return the training interactions of a size, by which its steps are to grow."""
    description = json.loads((folder / "data" / "dataset.json").read_text(encoding="utf-8"))
    return int(description["counts"]["train"])


def _of_an_epoch(took: Took) -> Measured:
    metrics = took.answer
    training = metrics["training"]
    epochs = training["processor_seconds"]
    more = {"epochs": training["epochs"], "start_and_evaluation_seconds": round(took.processor_seconds - epochs, 1)}
    return Measured(epochs / training["epochs"], took.peak_bytes, metrics["test"]["Recall@20"], more)


def _processor_seconds(process: psutil.Process) -> float:
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def _resident(process: psutil.Process) -> int:
    return int(sum(each.memory_info().rss for each in (process, *process.children(recursive=True))))


def _count_answers(metrics: str) -> float:
    lines = (line for line in metrics.splitlines() if line.startswith("lowpass_request_duration_seconds_count"))
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)
