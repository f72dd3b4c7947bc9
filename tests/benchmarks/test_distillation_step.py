"""One training step with each method at the size of the paper's CiteULike: ratios taken in one run.

The public code took 8.2 s a step of this size (teacher 400, student 20, batch 2048, one thread) and 8 GB, measured
once and on its own: the column against it is only as good as the likeness of the two cores. Memory is the most that
was resident at once while a method was built and run; it needs Linux.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest
import torch

from distill.backbones.bprmf import BPRMF
from distill.data.interactions import Interactions
from distill.data.prepare import PrepareOptions, prepare
from distill.data.readers import ColumnNames, read_citeulike
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.methods import METHODS, Method, Step, Teacher
from distill.methods.freqd import FreqDSettings
from distill.sampling import Batch, PairwiseSampler

CITEULIKE = Path(__file__).resolve().parents[3] / "shared" / "data" / "citeulike-t" / "users.dat"
TEACHER_DIM, STUDENT_DIM, BATCH_SIZE, STEPS = 400, 20, 2048, 20
PUBLIC_CODE_SECONDS = 8.2

FREQD = FreqDSettings(keep_prob=1.0)
CASES: dict[str, tuple[str, FreqDSettings]] = {
    "scratch": ("scratch", FREQD),
    "fd linear": ("fd", FREQD),
    "freqd bipartite linear": ("freqd", FREQD),
    "freqd bipartite quadratic": ("freqd", replace(FREQD, filter="quadratic")),
    "freqd bipartite mlp": ("freqd", replace(FREQD, projector="mlp")),
    "freqd cooccurrence linear": ("freqd", replace(FREQD, variant="cooccurrence")),
    "freqd cooccurrence mlp": ("freqd", replace(FREQD, variant="cooccurrence", projector="mlp")),
    "freqd cooccurrence dropout": ("freqd", replace(FREQD, variant="cooccurrence", keep_prob=0.5)),
}


@pytest.fixture(scope="module")
def data() -> Interactions:
    if CITEULIKE.is_file():
        options = PrepareOptions(split="ordered", user_minimum=5)
        return prepare(
            read_citeulike(CITEULIKE, ColumnNames()), options, name="citeulike-t", source={"reader": "citeulike"}
        )
    return synthesize(SyntheticOptions(num_users=5000, num_items=25000, num_clusters=300, mean_interactions=24))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def reset_peak_memory() -> None:
    """Let the kernel count the peak anew (proc(5), clear_refs 5)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory_mib() -> float:
    """The most that was resident at once since the reset: interpreter, torch, data and teacher included."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def time_steps(method: Method, student: BPRMF, batches: list[Batch]) -> float:
    """Median seconds of a whole step: both losses, gradients and Adam."""
    parameters = [*student.parameters(), *method.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)
    seconds = []
    for batch in batches:
        started = time.perf_counter()
        loss = student.base_loss(batch, student.embeddings())
        added = method.distillation_loss(Step(batch, student.features, student.embeddings(), generator))
        optimizer.zero_grad()
        torch.autograd.backward(loss if added is None else loss + added)
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[2:])


@pytest.mark.timeout(1200)
def test_a_step_costs_little_more_than_the_bare_student(data: Interactions) -> None:
    torch.manual_seed(0)
    teacher = Teacher(torch.randn(data.num_users + data.num_items, TEACHER_DIM), data.num_users)
    sampler, rng = PairwiseSampler(data.train, BATCH_SIZE), np.random.default_rng(0)
    batches = [batch for batch in sampler.epoch(rng) if len(batch.users) == BATCH_SIZE][: STEPS + 2]
    found: dict[str, float] = {}
    click.echo(f"\n{data.name}: {data.counts}; d_t {TEACHER_DIM}, d_s {STUDENT_DIM}, batch {BATCH_SIZE}, one thread")
    click.echo(f"{'method':28s} {'build s':>8s} {'step ms':>8s} {'/ scratch':>9s} {'8.2 s /':>8s} {'peak MiB':>9s}")
    for name, (method_name, settings) in CASES.items():
        reset_peak_memory()
        student = BPRMF(data.num_users, data.num_items, STUDENT_DIM)
        started = time.perf_counter()
        method = METHODS[method_name].build(settings, data, student, teacher)
        built = time.perf_counter() - started
        found[name] = time_steps(method, student, batches)
        ratio = found[name] / found["scratch"]
        click.echo(
            f"{name:28s} {built:8.2f} {1000 * found[name]:8.1f} {ratio:9.1f} "
            f"{PUBLIC_CODE_SECONDS / found[name]:8.0f} {peak_memory_mib():9.0f}"
        )
    assert found["freqd bipartite linear"] < 30 * found["scratch"]
    assert found["freqd cooccurrence linear"] < 30 * found["scratch"]
    assert found["freqd bipartite linear"] < 5 * found["fd linear"], "the filter must cost less than the teacher's rows"
    assert found["freqd bipartite linear"] < found["freqd bipartite mlp"]
