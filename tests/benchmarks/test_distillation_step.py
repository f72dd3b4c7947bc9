"""One training step with each method at the sizes of the paper: ratios taken in one run.

The public code took 8.2 s a step on CiteULike (teacher 400, student 20, batch 2048, one thread) and 8 GB, measured
once and on its own: the column against it is only as good as the likeness of the two cores. Memory is the most that
was resident at once while a method was built and run; it needs Linux.

The floor of a FreqD step with a linear projector is the bare student's step, the teacher's rows read once, and two
products of them; "/ floor" divides by exactly that, timed on its own in the same run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch

from distill.backbones.bprmf import BPRMF
from distill.backbones.sampling import Batch, PairwiseSampler
from distill.data.interactions import Interactions
from distill.data.prepare import PrepareOptions, prepare
from distill.data.readers import ColumnNames, read_citeulike, read_lightgcn
from distill.methods import METHODS, Method, Step, Teacher
from distill.methods.freqd import FeatureSettings, FreqDSettings
from distill.training.trainer import keep_freed_memory

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
SOURCES = {
    "citeulike-t": (read_citeulike, PrepareOptions(split="ordered", user_minimum=5), 400),
    "gowalla": (read_lightgcn, PrepareOptions(), 300),
}
"""Name → reader, preparation, and the paper's d_t."""
STUDENT_DIM, BATCH_SIZE, STEPS = 20, 2048, 40
PUBLIC_CODE_SECONDS = 8.2
MOST_SCRATCH_STEPS = 3.0

SHARED_STEPS = "freqd bipartite linear bfloat16, 1 step in 5"
FREQD = FreqDSettings(keep_prob=1.0)
BFLOAT16 = replace(FREQD, teacher_precision="bfloat16")
CASES: dict[str, tuple[str, Any]] = {
    "scratch": ("scratch", None),
    "fd linear": ("fd", FeatureSettings()),
    "freqd bipartite linear": ("freqd", FREQD),
    "freqd bipartite linear rank 64": ("freqd", replace(FREQD, teacher_rank=64)),
    "freqd bipartite linear bfloat16": ("freqd", BFLOAT16),
    SHARED_STEPS: ("freqd", replace(BFLOAT16, step_share=0.2)),
    "freqd bipartite quadratic": ("freqd", replace(FREQD, filter="quadratic")),
    "freqd bipartite mlp": ("freqd", replace(FREQD, projector="mlp")),
    "freqd bipartite mlp rank 64": ("freqd", replace(FREQD, projector="mlp", teacher_rank=64)),
    "freqd cooccurrence linear": ("freqd", replace(FREQD, variant="cooccurrence")),
    "freqd cooccurrence linear bfloat16": ("freqd", replace(BFLOAT16, variant="cooccurrence")),
    "freqd cooccurrence mlp": ("freqd", replace(FREQD, variant="cooccurrence", projector="mlp")),
    "freqd cooccurrence dropout": ("freqd", replace(FREQD, variant="cooccurrence", keep_prob=0.5)),
}
QUADRATIC_ONLY_ON = {"citeulike-t"}
"""The square of Gowalla's user–item graph exceeds the bound on a filter's entries."""


@pytest.fixture(scope="module", params=list(SOURCES))
def data(request: pytest.FixtureRequest) -> Interactions:
    reader, options, _ = SOURCES[request.param]
    path = SHARED / request.param
    if not path.exists():
        pytest.skip(f"the data set {request.param} is not in ../shared/data")
    table = reader(path / "users.dat" if reader is read_citeulike else path, ColumnNames())
    return prepare(table, options, name=request.param, source={"reader": reader.__name__})


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    keep_freed_memory()
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
    """Median seconds of a whole step: both losses, gradients and Adam; steps without distillation count as often as
    they come."""
    parameters = [*student.parameters(), *method.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-3, fused=True)
    generator = torch.Generator().manual_seed(0)
    share = getattr(getattr(method, "settings", None), "step_share", 1.0)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for batch in batches:
        started = time.perf_counter()
        loss = student.base_loss(batch, student.embeddings())
        added = method.distillation_loss(Step(batch, student.features, student.embeddings(), generator))
        optimizer.zero_grad()
        torch.autograd.backward(loss if added is None else loss + added)
        optimizer.step()
        seconds[added is not None and added.requires_grad].append(time.perf_counter() - started)
    distilling, bare = (statistics.median(times[2:]) if len(times) > 2 else 0.0 for times in seconds.values())
    return distilling * share + bare * (1 - share) if distilling else bare


def time_floor(student_dim: int, teacher: Teacher, rows: torch.Tensor) -> float:
    """Median seconds to gather the teacher's rows and multiply them twice: by W, and into its gradient."""
    weight, own = torch.randn(teacher.dim, student_dim), torch.randn(len(rows), student_dim)
    seconds = []
    for _ in range(STEPS):
        started = time.perf_counter()
        gathered = teacher.features.index_select(0, rows)
        gathered @ weight
        own.T @ gathered
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


@pytest.mark.timeout(1200)
def test_a_step_costs_little_more_than_the_bare_student(data: Interactions) -> None:
    torch.manual_seed(0)
    dim = SOURCES[data.name][2]
    teacher = Teacher(torch.randn(data.num_users + data.num_items, dim), data.num_users)
    sampler, rng = PairwiseSampler(data.train, BATCH_SIZE), np.random.default_rng(0)
    batches = [batch for batch in sampler.epoch(rng) if len(batch.users) == BATCH_SIZE][: STEPS + 2]
    first = batches[0]
    rows = torch.unique(torch.cat([first.users, *(data.num_users + p for p in (first.positives, first.negatives))]))
    found: dict[str, float] = {}
    click.echo(f"\n{data.name}: {data.counts}; d_t {dim}, d_s {STUDENT_DIM}, batch {BATCH_SIZE}, one thread")
    size, work = 4 * len(rows) * dim / 1e6, 4e-9 * len(rows) * dim * STUDENT_DIM
    click.echo(f"{len(rows):,} teacher rows a step: {size:.1f} MB, {work:.2f} GFLOP")
    columns = f"{'step ms':>8s} {'/ scratch':>9s} {'/ floor':>8s} {'8.2 s /':>8s} {'peak MiB':>9s}"
    click.echo(f"{'method':46s} {'build s':>8s} {columns}")
    for name, (method_name, settings) in CASES.items():
        if "quadratic" in name and data.name not in QUADRATIC_ONLY_ON:
            continue
        reset_peak_memory()
        student = BPRMF(data.num_users, data.num_items, STUDENT_DIM)
        started = time.perf_counter()
        method = METHODS[method_name].build(settings, data, student, teacher)
        built = time.perf_counter() - started
        found[name] = time_steps(method, student, batches)
        floor = found["scratch"] + time_floor(STUDENT_DIM, teacher, rows)
        click.echo(
            f"{name:46s} {built:8.2f} {1000 * found[name]:8.1f} {found[name] / found['scratch']:9.1f} "
            f"{found[name] / floor:8.1f} {PUBLIC_CODE_SECONDS / found[name]:8.0f} {peak_memory_mib():9.0f}"
        )
    whole, shared = found["freqd bipartite linear bfloat16"], found[SHARED_STEPS]
    click.echo(
        f"a linear FreqD step: {whole / found['scratch']:.1f} scratch steps where every step distills, "
        f"{shared / found['scratch']:.1f} where one in five does (aim: {MOST_SCRATCH_STEPS:g})"
    )
    assert shared < 1.5 * MOST_SCRATCH_STEPS * found["scratch"]
    assert whole < 5 * MOST_SCRATCH_STEPS * found["scratch"], "the aim is missed (DESIGN.md says why); this is far off"
    assert found["freqd bipartite linear"] < 2 * found["fd linear"], "the filter must cost less than the teacher's rows"
    assert found["freqd bipartite linear"] < found["freqd bipartite mlp"]
    assert found["freqd bipartite mlp rank 64"] < 0.7 * found["freqd bipartite mlp"]
