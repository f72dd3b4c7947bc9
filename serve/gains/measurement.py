"""One model's figures: what its manifest says, and what the rounds measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from serve.gains.contestants import Contestant, Role
from serve.gains.measure import Measured, Round, across

LATENCIES = ("p50_ms", "p95_ms", "p99_ms")


@dataclass(frozen=True)
class Measurement:
    """What is known of one model; sizes in bytes.

    Args:
        role: What it is in the comparison.
        name: In the repository.
        dim: Embedding dimension.
        parameters: Numbers in the embeddings.
        item_bytes: An item's vector or code in the index.
        codebook_bytes: What codes need beside them, for the whole catalogue.
        user_bytes: A user's vector.
        bundle_bytes: All files of the bundle.
        index: FAISS factory string.
        ann_recall: Share of the exact top list that the index finds.
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
    codebook_bytes: int
    user_bytes: float
    bundle_bytes: int
    index: str
    ann_recall: float
    quality: Mapping[str, Any]
    memory: Mapping[str, float]
    levels: Mapping[str, Mapping[str, Measured | None]]
    errors: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return asdict(self)

    def level(self, in_flight: int, name: str) -> float | None:
        """The median over the rounds of one figure, None where it was not measured."""
        measured = self.levels[str(in_flight)][name]
        return None if measured is None else measured.median


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
        codebook_bytes=max((int(row.get("codebook_bytes", 0)) for row in manifest.index.candidates), default=0),
        user_bytes=manifest.files["user_embeddings.npy"].bytes / max(manifest.counts["users"], 1),
        bundle_bytes=manifest.total_bytes,
        index=manifest.index.factory,
        ann_recall=manifest.index.ann_recall,
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


def gains_over(teacher: Measurement, other: Measurement) -> dict[str, float]:
    """How many times better than the teacher a model is, above 1 being a gain in each figure.

    Args:
        teacher: The reference.
        other: The one compared.

    Returns:
        Ratios by name; those that were not measured for both are left out.
    """
    less_is_better = {
        "parameters": (teacher.parameters, other.parameters),
        "item_bytes": (teacher.item_bytes, other.item_bytes),
        "user_bytes": (teacher.user_bytes, other.user_bytes),
        "bundle_bytes": (teacher.bundle_bytes, other.bundle_bytes),
        "memory": (teacher.memory.get("rss"), other.memory.get("rss")),
        "search": (teacher.level(1, "search_us"), other.level(1, "search_us")),
        "throughput_per_core": (teacher.level(32, "server_cpu_us"), other.level(32, "server_cpu_us")),
    }
    for in_flight in (1, 32):
        for name in LATENCIES:
            pair = (teacher.level(in_flight, name), other.level(in_flight, name))
            less_is_better[f"{name.removesuffix('_ms')}_at_{in_flight}"] = pair
    ratios = {name: before / after for name, (before, after) in less_is_better.items() if before and after}
    for name, metric in (("recall", "recall@20"), ("ndcg", "ndcg@20")):
        if teacher.quality.get(metric):
            ratios[name] = other.quality[metric] / teacher.quality[metric]
    before, after = teacher.level(32, "throughput"), other.level(32, "throughput")
    if before and after:
        ratios["throughput_at_32"] = after / before
    return ratios
