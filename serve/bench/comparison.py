"""The comparison of models: each is served in turn and asked alike, and all are set against the first, the teacher.

Beside teacher and student stand their rivals: the teacher made small without training, by SVD and by product
quantisation, at the student's bytes an item. Every model is visited once a round; every other round goes backwards, so
that a drift of the machine hits all alike. Figures are medians over the rounds, and a difference smaller than the
rounds' own spread is called level.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import median
from typing import Any

from export.bundle import Manifest, UnknownModel, open_manifest
from export.bundle.repository import ModelRepository
from serve.bench.errors import BenchError
from serve.bench.experiments import warm_up
from serve.bench.load import Asking, Generator
from serve.bench.servers import CorePlan, ServerProcess, run_lowpass, serve_model
from serve.bench.windows import Window
from serve.bench.workload import Distribution, Workload

BYTES_PER_NUMBER = 4
LEVELS = (1, 32)
"""Requests in flight: one caller who waits, and a busy server."""
CUTOFF = 20
"""Items an answer: the cutoff at which quality is reported."""
PERCENTILES = (50, 95, 99)


class Role(StrEnum):
    """What a model is in the comparison."""

    TEACHER = "teacher"
    STUDENT = "student"
    SVD = "SVD of the teacher"
    PQ = "PQ of the teacher"
    OTHER = "also compared"


@dataclass(frozen=True)
class Contestant:
    """One model of the comparison: its role, its name in the repository, its bundle and what that says of itself."""

    role: Role
    name: str
    path: Path
    manifest: Manifest


def find_contestants(
    repository: ModelRepository, student: str, against: Sequence[str], *, rivals: bool, answer_tables: bool = False
) -> tuple[list[Contestant], list[str]]:
    """Open the manifests of all that are compared; rivals that are missing or out of date are built.

    Args:
        repository: Holds the models; their default versions are taken.
        student: Name of the model that the comparison is about.
        against: Names of the models it is compared with, the teacher first.
        rivals: Whether to compare with the teacher's SVD and PQ as well.
        answer_tables: Whether to compare bundles with an answer table, whose speed says nothing of the model.

    Returns:
        The contestants, teacher first and student second, and notes for the reader.

    Raises:
        BenchError: The models are of different data, one has an answer table, or the rivals could not be built.
        RepositoryError: A model is not there.
        BundleError: A manifest is unreadable.
    """
    teacher, *others = against
    roles = [(Role.TEACHER, teacher), (Role.STUDENT, student), *((Role.OTHER, name) for name in others)]
    given = [_open(repository, role, name) for role, name in roles]
    _check_same_data(given)
    notes = _check_answer_tables(given, allowed=answer_tables)
    first, second = given[0].manifest.model, given[1].manifest.model
    if rivals and second.dim < first.dim:
        given[2:2] = _find_rivals(repository, given[0], second.dim)
    elif rivals:
        notes.append(
            f"No rivals: {student} has d = {second.dim}, not less than the teacher's {first.dim}, so there is nothing"
            " to cut the teacher down to."
        )
    return given, notes


def _open(repository: ModelRepository, role: Role, name: str) -> Contestant:
    path = repository.resolve(name)
    return Contestant(role, name, path, open_manifest(path))


def _check_same_data(contestants: Sequence[Contestant]) -> None:
    first = contestants[0]
    for other in contestants[1:]:
        if other.manifest.data["fingerprint"] != first.manifest.data["fingerprint"]:
            raise BenchError(
                f"{other.path}: data.fingerprint is not that of {first.path}; export both models from the same data"
            )


def _check_answer_tables(contestants: Sequence[Contestant], *, allowed: bool) -> list[str]:
    """Refuse models that look their answers up, or note them."""
    names = ", ".join(model.name for model in contestants if model.manifest.answer_table)
    if names and not allowed:
        raise BenchError(
            f"{names}: answers from a table made at export, which says nothing of the model; export without"
            " --answer-table, or give --answer-tables to compare it so"
        )
    return [f"Answered from tables made at export, without a search: {names}."] if names else []


def _find_rivals(repository: ModelRepository, teacher: Contestant, dim: int) -> list[Contestant]:
    names = {Role.SVD: f"{teacher.name}-svd{dim}", Role.PQ: f"{teacher.name}-pq{BYTES_PER_NUMBER * dim}"}
    try:
        found = [_open(repository, role, name) for role, name in names.items()]
        if all(_is_of(rival.manifest, teacher.manifest) for rival in found):
            return found
    except UnknownModel:
        pass
    # In a child process: what serves must not import what trains.
    run_lowpass("export", "--rivals", str(dim), "--teacher", teacher.name, "--repository", str(repository.root))
    return [_open(repository, role, name) for role, name in names.items()]


def _is_of(rival: Manifest, teacher: Manifest) -> bool:
    """Whether a rival was made from this very teacher, as far as its manifest tells."""
    return (
        rival.data["fingerprint"] == teacher.data["fingerprint"]
        and rival.quality.get("teacher_recall@20") == teacher.quality.get("recall@20")
        and rival.created >= teacher.created
    )


@dataclass(frozen=True)
class LoadOptions:
    """How the models are asked.

    Attributes:
        seconds: Length of a window, one for each of `LEVELS` in each visit.
        rounds: How often each model is served and asked.
        users: Who asks; see `serve.bench.workload.Workload`.
        seed: Of the draw of users; round r adds r.
    """

    seconds: float = 3.0
    rounds: int = 3
    users: Distribution = "uniform"
    seed: int = 0


@dataclass(frozen=True)
class Visit:
    """What one round saw of a model.

    Attributes:
        levels: Requests in flight → figures, as `read_level` names them.
        errors: Failed requests by status code.
        memory: Of the server after the load, bytes; see `serve.bench.servers.memory_of`.
    """

    levels: Mapping[str, Mapping[str, float]]
    errors: Mapping[str, int]
    memory: Mapping[str, int]


def read_level(window: Window, server_cpu_seconds: float) -> dict[str, float]:
    """A window's figures by name.

    "p50_ms", "p95_ms", "p99_ms" as the caller sees them, "throughput" in answers a second, "server_cpu_us" of processor
    time an answer, "load_busy" as the share of its core that the load generator used, "search_us" of the server's
    search stage.

    Raises:
        BenchError: Not one request was answered.
    """
    if not window.answered:
        failed = ", ".join(f"{count} × {code}" for code, count in sorted(window.errors.items())) or "none was sent"
        raise BenchError(f"no request was answered ({failed}); see the server's log")
    return {
        **{f"p{share}_ms": window.at(share) for share in PERCENTILES},
        "throughput": window.throughput,
        "server_cpu_us": server_cpu_seconds / window.answered * 1e6,
        "load_busy": window.load_busy,
        "search_us": window.stage("search"),
    }


def visit_all(
    repository: Path,
    contestants: Sequence[Contestant],
    options: LoadOptions,
    cores: CorePlan,
    advance: Callable[[str], None],
) -> dict[str, list[Visit]]:
    """Serve and ask every model once a round.

    Args:
        repository: Root of the model repository.
        contestants: Models to serve.
        options: How they are asked.
        cores: Who runs where.
        advance: Called with the model's name after each visit.

    Returns:
        The visits of each model, by its name.

    Raises:
        BenchError: A server or the load failed.
    """
    visits: dict[str, list[Visit]] = {contestant.name: [] for contestant in contestants}
    for number in range(options.rounds):
        order = contestants if number % 2 == 0 else list(reversed(contestants))
        for contestant in order:
            visits[contestant.name].append(_visit(repository, contestant, options, cores, number))
            advance(contestant.name)
    return visits


def _visit(repository: Path, contestant: Contestant, options: LoadOptions, cores: CorePlan, number: int) -> Visit:
    workload = Workload(contestant.name, CUTOFF, options.users, options.seed + number)
    errors: Counter[str] = Counter()
    with (
        serve_model(repository, contestant.name, cores.server) as server,
        Generator(server.address, contestant.path, workload, core=cores.load) as load,
    ):
        levels = {str(level): _ask(server, load, Asking(options.seconds, in_flight=level), errors) for level in LEVELS}
        return Visit(levels, errors, server.memory())


def _ask(server: ServerProcess, load: Generator, asking: Asking, errors: Counter[str]) -> dict[str, float]:
    warm_up(load.run, asking)
    before = server.cpu_seconds()
    window = load.run(asking)
    errors.update(window.errors)
    return read_level(window, server.cpu_seconds() - before)


@dataclass(frozen=True)
class Measured:
    """A number measured in several rounds: the median of them, the least and the greatest."""

    median: float
    least: float
    greatest: float


Figure = Measured | float | None
"""Measured over the rounds, or known exactly, or unknown."""


@dataclass(frozen=True)
class Measurement:
    """What is known of one model; sizes in bytes.

    Attributes:
        role: What it is in the comparison.
        name: Name in the repository.
        dim: Embedding dimension.
        parameters: Numbers in the embeddings.
        item_bytes: An item's vector or code in the index.
        index_bytes: The index file over its items: vectors or codes, codebooks, and the links of a graph index.
        codebook_bytes: What codes need beside them, for the whole catalogue.
        user_bytes: A user's vector.
        bundle_bytes: All files of the bundle.
        index: FAISS factory string.
        ann_recall: Share of the exact top list that the index finds.
        answer_table: Ready answers a user; 0 where the model answers.
        quality: From the manifest: "recall@20", "ndcg@20", "kept_recall", "convention", …
        memory: "rss" and "anonymous" memory of the process after the load, medians.
        levels: Requests in flight → figures over the rounds, by the names of `read_level`.
        errors: Failed requests by status code, over all rounds.
    """

    role: Role
    name: str
    dim: int
    parameters: int
    item_bytes: float
    index_bytes: float
    codebook_bytes: int
    user_bytes: float
    bundle_bytes: int
    index: str
    ann_recall: float
    answer_table: int
    quality: Mapping[str, Any]
    memory: Mapping[str, float]
    levels: Mapping[str, Mapping[str, Measured]]
    errors: Mapping[str, int]

    def figure(self, in_flight: int, name: str) -> Measured:
        """One figure of a level."""
        return self.levels[str(in_flight)][name]

    def level(self, in_flight: int, name: str) -> float:
        """The median of that figure over the rounds."""
        return self.figure(in_flight, name).median

    @property
    def answers_per_core(self) -> float | None:
        """Answers a second that one core of the server can give; None where its processor time was too short to read.

        One second over the processor time an answer, so that a load generator that falls behind does not count.
        """
        cpu = self.level(32, "server_cpu_us")
        return 1e6 / cpu if cpu else None


def build_measurement(contestant: Contestant, visits: Sequence[Visit]) -> Measurement:
    """Put what a manifest says and what at least one visit saw together."""
    manifest = contestant.manifest
    errors: Counter[str] = Counter()
    for visit in visits:
        errors.update(visit.errors)
    return Measurement(
        role=contestant.role,
        name=contestant.name,
        dim=manifest.model.dim,
        parameters=manifest.model.num_parameters,
        item_bytes=manifest.index.bytes_per_item,
        index_bytes=manifest.files["index.faiss"].bytes / max(manifest.counts["items"], 1),
        codebook_bytes=max((int(row.get("codebook_bytes", 0)) for row in manifest.index.candidates), default=0),
        user_bytes=manifest.files["user_embeddings.npy"].bytes / max(manifest.counts["users"], 1),
        bundle_bytes=manifest.total_bytes,
        index=manifest.index.factory,
        ann_recall=manifest.index.ann_recall,
        answer_table=manifest.answer_table,
        quality=manifest.quality,
        memory={part: median(visit.memory[part] for visit in visits) for part in visits[0].memory},
        levels={level: _over_rounds([visit.levels[level] for visit in visits]) for level in visits[0].levels},
        errors=dict(errors),
    )


def _over_rounds(rounds: Sequence[Mapping[str, float]]) -> dict[str, Measured]:
    figures = {name: [figures[name] for figures in rounds] for name in rounds[0]}
    return {name: Measured(median(values), min(values), max(values)) for name, values in figures.items()}


@dataclass(frozen=True)
class Gain:
    """How two models compare in one figure.

    Attributes:
        ratio: How many times better the second is; above 1 it wins.
        level: Whether the difference means nothing: the ranges over the rounds overlap, or the two are equal.
    """

    ratio: float
    level: bool


def gains_over(reference: Measurement, other: Measurement) -> dict[str, Gain]:
    """How many times better than a reference a model is, by figure.

    A figure that is not known of both, or was measured by different conventions, is left out.
    """
    less_is_better: dict[str, tuple[Figure, Figure]] = {
        name: (getattr(reference, name), getattr(other, name))
        for name in ("parameters", "item_bytes", "index_bytes", "user_bytes", "bundle_bytes")
    }
    less_is_better["memory"] = (reference.memory.get("rss"), other.memory.get("rss"))
    less_is_better["search"] = (reference.figure(1, "search_us"), other.figure(1, "search_us"))
    less_is_better["throughput_per_core"] = (reference.figure(32, "server_cpu_us"), other.figure(32, "server_cpu_us"))
    for in_flight in LEVELS:
        for share in PERCENTILES:
            pair = (reference.figure(in_flight, f"p{share}_ms"), other.figure(in_flight, f"p{share}_ms"))
            less_is_better[f"p{share}_at_{in_flight}"] = pair
    more_is_better: dict[str, tuple[Figure, Figure]] = {
        "throughput_at_32": (reference.figure(32, "throughput"), other.figure(32, "throughput"))
    }
    if reference.quality.get("convention") == other.quality.get("convention"):
        for name, metric in (("recall", "recall@20"), ("ndcg", "ndcg@20")):
            more_is_better[name] = (reference.quality.get(metric), other.quality.get(metric))
    gains = {name: _gain(before, after) for name, (before, after) in less_is_better.items()}
    gains |= {name: _gain(after, before) for name, (before, after) in more_is_better.items()}
    return {name: gain for name, gain in gains.items() if gain is not None}


def _gain(numerator: Figure, denominator: Figure) -> Gain | None:
    if numerator is None or denominator is None:
        return None
    one, two = (
        value if isinstance(value, Measured) else Measured(value, value, value) for value in (numerator, denominator)
    )
    if not one.median or not two.median:
        return None
    return Gain(one.median / two.median, one.least <= two.greatest and two.least <= one.greatest)
