"""One model's figures: what its manifest says, and what the rounds measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from serve.bench.contestants import Contestant, Role
from serve.bench.rounds import Measured, Round, across

LATENCIES = ("p50_ms", "p95_ms", "p99_ms")
Figure = Measured | float | None
"""Measured over the rounds, or known exactly, or unknown."""


@dataclass(frozen=True)
class Measurement:
    """What is known of one model; sizes in bytes.

    Args:
        role: What it is in the comparison.
        name: In the repository.
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
        memory: "rss" and "anonymous" memory of the process after the load, medians; empty where unknown.
        levels: Requests in flight → "p50_ms", "p95_ms", "p99_ms" (milliseconds, as the caller sees them),
            "throughput" (answers a second), "server_cpu_us" (processor time of the server an answer), "load_busy"
            (share of its core the load generator used), "search_us" (the server's search stage).
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
    levels: Mapping[str, Mapping[str, Measured | None]]
    errors: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    def figure(self, in_flight: int, name: str) -> Measured | None:
        """One figure of a level, None where it was not measured."""
        return self.levels[str(in_flight)][name]

    def level(self, in_flight: int, name: str) -> float | None:
        """The median of that figure over the rounds, None where it was not measured."""
        measured = self.figure(in_flight, name)
        return None if measured is None else measured.median


@dataclass(frozen=True)
class Gain:
    """How two models compare in one figure.

    Args:
        ratio: How many times better the second is; above 1 it wins.
        level: Whether the difference means nothing: the ranges over the rounds overlap, or the two are equal.
    """

    ratio: float
    level: bool


def build_measurement(contestant: Contestant, rounds: Sequence[Round]) -> Measurement:
    """Put a manifest and its rounds together.

    Args:
        contestant: The model.
        rounds: What `run_rounds` saw of it, at least one.
    """
    manifest = contestant.manifest
    errors: dict[str, int] = {}
    for visit in rounds:
        for level in visit["levels"].values():
            for code, count in level["errors"].items():
                errors[code] = errors.get(code, 0) + count
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
        memory={part: median(visit["memory"][part] for visit in rounds) for part in rounds[0]["memory"]},
        levels={level: _level_figures(rounds, level) for level in rounds[0]["levels"]},
        errors=errors,
    )


def _level_figures(rounds: Sequence[Round], level: str) -> dict[str, Measured | None]:
    def across_rounds(name: str) -> Measured | None:
        return across(rounds, lambda visit: visit["levels"][level][name])

    figures = {name: across_rounds(name) for name in (*LATENCIES, "throughput", "server_cpu_us", "load_busy")}
    figures["search_us"] = across(rounds, lambda visit: visit["levels"][level]["stages_p50_us"]["search"])
    return figures


def gains_over(reference: Measurement, other: Measurement) -> dict[str, Gain]:
    """How many times better than the reference a model is.

    Args:
        reference: The teacher, say.
        other: The one compared.

    Returns:
        Gains by name; a figure that is not known of both, or was measured by different conventions, is left out.
    """
    less_is_better: dict[str, tuple[Figure, Figure]] = {
        name: (getattr(reference, name), getattr(other, name))
        for name in ("parameters", "item_bytes", "index_bytes", "user_bytes", "bundle_bytes")
    }
    less_is_better["memory"] = (reference.memory.get("rss"), other.memory.get("rss"))
    less_is_better["search"] = (reference.figure(1, "search_us"), other.figure(1, "search_us"))
    less_is_better["throughput_per_core"] = (reference.figure(32, "server_cpu_us"), other.figure(32, "server_cpu_us"))
    for in_flight in (1, 32):
        for name in LATENCIES:
            pair = (reference.figure(in_flight, name), other.figure(in_flight, name))
            less_is_better[f"{name.removesuffix('_ms')}_at_{in_flight}"] = pair
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
