"""The figures as a Markdown table, and what they say in words that are computed from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from serve.bench.measurement import Gain, Measurement, gains_over
from serve.bench.rounds import CUTOFF, LoadOptions

Row = tuple[str, Callable[[Measurement], float | None], Callable[[float], str]]


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _mebibytes(value: float) -> str:
    return f"{value / 2**20:,.1f} MiB"


def _microseconds(value: float) -> str:
    return f"{value:,.0f} µs"


def _milliseconds(value: float) -> str:
    return f"{value:,.2f} ms"


def _level(in_flight: int, name: str) -> Callable[[Measurement], float | None]:
    return lambda m: m.level(in_flight, name)


def _per_core(m: Measurement) -> float | None:
    cpu = m.level(32, "server_cpu_us")
    return 1e6 / cpu if cpu else None


ROWS: tuple[Row, ...] = (
    ("dimension", lambda m: m.dim, _whole),
    ("parameters", lambda m: m.parameters, _whole),
    ("bytes an item, in the index", lambda m: m.item_bytes, _whole),
    ("index file, bytes an item", lambda m: m.index_bytes, _whole),
    ("codebook bytes in it", lambda m: m.codebook_bytes, _whole),
    ("bytes a user", lambda m: m.user_bytes, _whole),
    ("bundle", lambda m: m.bundle_bytes, _mebibytes),
    ("process memory", lambda m: m.memory.get("rss"), _mebibytes),
    ("of it not backed by files", lambda m: m.memory.get("anonymous"), _mebibytes),
    *(
        (f"{name.removesuffix('_ms')}, {in_flight} in flight", _level(in_flight, name), _milliseconds)
        for in_flight in (1, 32)
        for name in ("p50_ms", "p95_ms", "p99_ms")
    ),
    ("answers/s, 32 in flight", _level(32, "throughput"), _whole),
    ("load generator's core busy meanwhile", _level(32, "load_busy"), _share),
    ("answers/s that a server core can give", _per_core, _whole),
    ("search stage on the server, 1 in flight", _level(1, "search_us"), _microseconds),
    ("ready answers a user, looked up instead", lambda m: m.answer_table, _whole),
    ("index finds of its exact top list", lambda m: m.ann_recall, _share),
    ("Recall@20", lambda m: m.quality.get("recall@20"), lambda value: f"{value:.4f}"),
    ("NDCG@20", lambda m: m.quality.get("ndcg@20"), lambda value: f"{value:.4f}"),
    ("kept of the teacher's Recall@20", lambda m: m.quality.get("kept_recall"), _share),
)


def render(measurements: Sequence[Measurement], options: LoadOptions, notes: Sequence[str]) -> str:
    """Write the report.

    Args:
        measurements: The teacher first, the student second, then any rivals.
        options: How they were asked.
        notes: What else a reader must know.

    Returns:
        Markdown.
    """
    lines = ["| | " + " | ".join(f"{m.role}<br>`{m.name}`, {m.index}" for m in measurements) + " |"]
    lines.append("|---" + "|---:" * len(measurements) + "|")
    for name, value_of, text in ROWS:
        values = [value_of(m) for m in measurements]
        if any(values):
            cells = ["–" if value is None else text(value) for value in values]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    said = [
        *findings(measurements),
        f"Closed loop over loopback gRPC, top {CUTOFF}, {options.requests:,} requests a load, users drawn "
        f"{options.users}, medians of {options.rounds} rounds; level means that the rounds' ranges overlap.",
        "What a server core can give is one second over the server's processor time an answer; where the load "
        "generator's core is busy, answers/s are its limit.",
        _convention(measurements),
        *notes,
    ]
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in said)]) + "\n"


def _convention(measurements: Sequence[Measurement]) -> str:
    conventions = sorted({str(m.quality.get("convention")) for m in measurements})
    if len(conventions) > 1:
        return "The models' quality was measured in different ways and does not compare: " + "; ".join(conventions)
    return f"Quality: {conventions[0]}. Each model answers from its own index."


def findings(measurements: Sequence[Measurement]) -> list[str]:
    """What the figures say of the student, in sentences.

    Args:
        measurements: The teacher first, the student second, then any rivals.
    """
    teacher, student, *rivals = measurements
    sentences = [_against_teacher(gains_over(teacher, student))]
    sentences += [_against_rival(student, rival) for rival in rivals]
    for measurement in measurements:
        if measurement.errors:
            failed = ", ".join(f"{count} × {code}" for code, count in sorted(measurement.errors.items()))
            sentences.append(f"Requests to {measurement.name} failed: {failed}; its latencies are of the rest.")
    return sentences


def _against_teacher(gain: dict[str, Gain]) -> str:
    kept = (
        f"keeps {_share(gain['recall'].ratio)} of the teacher's Recall@20" if "recall" in gain else "(quality unknown)"
    )
    figures = {"index size": "index_bytes", "bundle size": "bundle_bytes", "memory": "memory", "p50 alone": "p50_at_1"}
    figures |= {"p99 at 32": "p99_at_32", "throughput per core": "throughput_per_core", "search time": "search"}
    compared = _compared(gain, figures)
    return f"The student {kept} at {gain['item_bytes'].ratio:.1f} times fewer bytes an item: {compared}."


def _against_rival(student: Measurement, rival: Measurement) -> str:
    figures = {"Recall@20": "recall", "p50 alone": "p50_at_1", "throughput per core": "throughput_per_core"}
    figures |= {"bytes a user": "user_bytes", "index size": "index_bytes", "bundle size": "bundle_bytes"}
    compared = _compared(gains_over(rival, student), figures)
    return f"Student against {rival.role} at {_whole(rival.item_bytes)} bytes an item: {compared}."


def _compared(gains: dict[str, Gain], figures: dict[str, str]) -> str:
    return ", ".join(f"{name} {_verdict(gains[key])}" for name, key in figures.items() if key in gains)


def _verdict(gain: Gain) -> str:
    if gain.level:
        return "level"
    return f"{gain.ratio:.2f} times better" if gain.ratio > 1 else f"{1 / gain.ratio:.2f} times worse"
