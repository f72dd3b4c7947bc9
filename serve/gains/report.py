"""The measurements as a Markdown table, and what they say in words computed from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from serve.gains.measure import Measurement

ROLES = {
    "teacher": "teacher",
    "student": "student",
    "svd": "teacher, scores cut by SVD",
    "pq": "teacher, items product-quantised",
}
MEBIBYTE = 2**20
ALIKE = 0.02
"""Two figures within this share of each other are called level."""

Row = tuple[str, Callable[[Measurement], float | None], Callable[[float], str]]


def _plain(value: float) -> str:
    return f"{value:,.0f}"


def _quality(value: float) -> str:
    return f"{value:.4f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _mebibytes(value: float) -> str:
    return f"{value / MEBIBYTE:,.1f} MiB"


def _us(value: float) -> str:
    return f"{value:,.0f} µs"


def _memory(part: str) -> Callable[[Measurement], float | None]:
    return lambda m: m.memory.get(part)


def _latency(in_flight: str, quantile: str) -> Callable[[Measurement], float | None]:
    return lambda m: m.latency[in_flight][quantile]


ROWS: tuple[Row, ...] = (
    ("dimension", lambda m: m.dim, _plain),
    ("parameters", lambda m: m.parameters, _plain),
    ("bytes an item, in the index", lambda m: m.item_bytes, _plain),
    ("codebook bytes beside them", lambda m: m.codebook_bytes, _plain),
    ("bytes a user", lambda m: m.user_bytes, _plain),
    ("bundle", lambda m: m.bundle_bytes, _mebibytes),
    ("process memory, resident", _memory("resident"), _mebibytes),
    ("of it anonymous", _memory("anonymous"), _mebibytes),
    *((f"{q}, {n} in flight", _latency(n, q), _us) for n in ("1", "32") for q in ("p50", "p95", "p99")),
    ("answers/s, 32 in flight", lambda m: m.throughput["32"], _plain),
    ("answers per CPU second of the server", lambda m: m.answers_per_cpu_second["32"] or None, _plain),
    ("search stage, median, 1 in flight", lambda m: m.server["1"]["search"], _us),
    ("index finds of the exact top list", lambda m: m.ann_recall, _share),
    ("Recall@20", lambda m: m.quality["recall@20"], _quality),
    ("NDCG@20", lambda m: m.quality["ndcg@20"], _quality),
    ("kept of the teacher's Recall@20", lambda m: m.quality.get("kept_recall"), _share),
)


def ratios(teacher: Measurement, other: Measurement) -> dict[str, float]:
    """How many times better than the teacher, above 1 being a gain in each.

    Args:
        teacher: The reference.
        other: The one compared.
    """
    found = {
        "parameters": teacher.parameters / other.parameters,
        "item_bytes": teacher.item_bytes / other.item_bytes,
        "user_bytes": teacher.user_bytes / other.user_bytes,
        "bundle_bytes": teacher.bundle_bytes / other.bundle_bytes,
        "p50_1": teacher.latency["1"]["p50"] / other.latency["1"]["p50"],
        "p99_1": teacher.latency["1"]["p99"] / other.latency["1"]["p99"],
        "p50_32": teacher.latency["32"]["p50"] / other.latency["32"]["p50"],
        "p99_32": teacher.latency["32"]["p99"] / other.latency["32"]["p99"],
        "throughput_32": other.throughput["32"] / teacher.throughput["32"],
        "search_1": teacher.server["1"]["search"] / max(other.server["1"]["search"], 1.0),
        "recall": other.quality["recall@20"] / teacher.quality["recall@20"],
        "ndcg": other.quality["ndcg@20"] / teacher.quality["ndcg@20"],
    }
    if teacher.memory and other.memory:
        found["memory"] = teacher.memory["resident"] / other.memory["resident"]
    if teacher.answers_per_cpu_second["32"] and other.answers_per_cpu_second["32"]:
        found["per_cpu_second"] = other.answers_per_cpu_second["32"] / teacher.answers_per_cpu_second["32"]
    return {name: round(value, 3) for name, value in found.items()}


def render(measurements: Sequence[Measurement], context: dict[str, Any]) -> str:
    """Write the report.

    Args:
        measurements: The teacher first, then the student, then any rivals.
        context: "requests", "rounds", "k", "pinned" and "cpu", as measured.

    Returns:
        Markdown.
    """
    lines = ["| | " + " | ".join(f"{ROLES[m.role]}<br>`{m.name}`, {m.index}" for m in measurements) + " |"]
    lines.append("|---" + "|---:" * len(measurements) + "|")
    for name, value_of, text in ROWS:
        values = [value_of(m) for m in measurements]
        if any(values):
            cells = ["–" if value is None else text(value) for value in values]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", *_how(measurements, context), "", *(f"- {sentence}" for sentence in findings(measurements))]
    return "\n".join(lines) + "\n"


def _how(measurements: Sequence[Measurement], context: dict[str, Any]) -> list[str]:
    pinned = (
        "server and load pinned to a core each" if context["pinned"] else "not pinned: fewer than two cores to pin to"
    )
    conventions = {m.quality["convention"] for m in measurements}
    quality = next(iter(conventions)) if len(conventions) == 1 else "DIFFERENT CONVENTIONS: " + "; ".join(conventions)
    return [
        f"Closed loop over loopback gRPC, top {context['k']}, {context['requests']:,} requests a load, medians of "
        f"{context['rounds']} interleaved rounds, {pinned}. The load comes from Python and takes about as much "
        "processor time as the server, so the answers per CPU second of the server say more than the answers/s.",
        f"Quality: {quality}. Each model is served with its own best index.",
    ]


def findings(measurements: Sequence[Measurement]) -> list[str]:
    """What the figures say of the student, in sentences.

    Args:
        measurements: The teacher first, then the student, then any rivals.
    """
    teacher, student, *rivals = measurements
    gain = ratios(teacher, student)
    sentences = [
        f"Against its teacher the student keeps {_share(gain['recall'])} of Recall@20 with {gain['item_bytes']:.1f} times "
        f"fewer bytes an item and a bundle {gain['bundle_bytes']:.1f} times smaller.",
        f"{_faster('Its p50 alone', gain['p50_1'])}; {_faster('its p99 at 32 in flight', gain['p99_32'])}; "
        f"it searches {gain['search_1']:.1f} times as fast, and what gRPC costs is the same for both.",
    ]
    for rival in rivals:
        words = [
            _versus("quality", student.quality["recall@20"], rival.quality["recall@20"]),
            _versus("p50", rival.latency["1"]["p50"], student.latency["1"]["p50"]),
            _versus("throughput", student.throughput["32"], rival.throughput["32"]),
            _versus("bundle size", rival.bundle_bytes, student.bundle_bytes),
        ]
        sentences.append(
            f"Against the {ROLES[rival.role]} ({_plain(rival.item_bytes)} bytes an item): {', '.join(words)}."
        )
    return sentences


def _faster(what: str, ratio: float) -> str:
    if abs(ratio - 1) <= ALIKE:
        return f"{what} is level with the teacher's"
    return f"{what} is {ratio:.2f} times better" if ratio > 1 else f"{what} is {1 / ratio:.2f} times worse"


def _versus(what: str, student: float, rival: float) -> str:
    ratio = student / rival
    if abs(ratio - 1) <= ALIKE:
        return f"level in {what}"
    return f"the student {'wins' if ratio > 1 else 'loses'} in {what} ({ratio:.2f} times the rival)"
