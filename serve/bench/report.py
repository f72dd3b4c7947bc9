"""What was measured, in words: tables, sentences computed from them, and HdrHistogram's percentile file.

`describe`, `tabulate_windows` and `hgrm` tell of windows on running servers; `glance`, `headline`, `findings` and
`render` tell of a comparison of models.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from serve.bench.comparison import CUTOFF, LEVELS, PERCENTILES, Gain, LoadOptions, Measurement, Role, gains_over
from serve.bench.experiments import Pairs
from serve.bench.windows import PERCENTILES as WINDOW_PERCENTILES
from serve.bench.windows import STAGES, Window, percentile

HGRM_TICKS = 5
"""Lines a halving of the distance to 100 %, as HdrHistogram's own writer has them."""
ALIKE = 0.05
"""Ratios nearer to 1 than this are told as "the same": a reader at a glance cannot tell them apart."""
PAIR_FIGURES: dict[str, Callable[[Window], float]] = {
    "answers_per_second": lambda window: window.throughput,
    "p50": lambda window: window.at(50),
    "p99": lambda window: window.at(99),
}


def describe(window: Window, slo_ms: float | None = None) -> dict[str, Any]:
    """A window as numbers, milliseconds for callers and microseconds for the server's stages."""
    found: dict[str, Any] = {
        "answered": window.answered,
        "errors": window.errors,
        "seconds": round(window.seconds, 3),
        "intended_per_second": window.intended,
        "answers_per_second": round(window.throughput, 1),
        "mean_ms": round(float(window.latencies.mean()), 4) if window.answered else None,
        "max_ms": round(float(window.latencies.max()), 4) if window.answered else None,
        **{f"p{share:g}_ms": round(window.at(share), 4) if window.answered else None for share in WINDOW_PERCENTILES},
        "late_p99_ms": round(percentile(window.late, 99), 4) if window.answered else None,
        "load_busy": round(window.load_busy, 3),
    }
    if window.answered:
        found["stages_p50_us"] = {name: window.stage(name) for name in STAGES}
    if slo_ms is not None:
        found["slo_ms"] = slo_ms
        found["goodput_per_second"] = round(window.goodput(slo_ms), 1)
    return found


def tabulate_windows(described: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table with a column a target, and what failed below it.

    Args:
        described: Target → its window's numbers, by `describe`.
    """
    keys = [key for key in next(iter(described.values())) if key not in {"errors", "stages_p50_us"}]
    rows = []
    for key in keys:
        values = [numbers.get(key) for numbers in described.values()]
        if any(value is not None for value in values):
            rows.append([key.replace("_", " "), *("–" if value is None else f"{value:,}" for value in values)])
    for stage in STAGES:
        medians = [numbers.get("stages_p50_us", {}).get(stage) for numbers in described.values()]
        rows.append([f"server {stage} p50 µs", *("–" if value is None else f"{value:,.0f}" for value in medians)])
    lines = [_markdown(rows, list(described))]
    for name, numbers in described.items():
        if numbers["errors"]:
            failed = ", ".join(f"{count:,} × {code}" for code, count in numbers["errors"].items())
            lines.append(f"\n{name}: failed {failed}")
    return "\n".join(lines)


def describe_pairs(pairs: Pairs) -> str:
    """Second over first, median over rounds and range."""
    lines = []
    for name, figure in PAIR_FIGURES.items():
        ratios = pairs.ratios(figure)
        spread = f"({min(ratios):.2f} to {max(ratios):.2f})"
        lines.append(f"{name.replace('_', ' ')}: second / first {statistics.median(ratios):.2f} {spread}")
    return "\n".join(lines)


def hgrm(window: Window) -> bytes:
    """HdrHistogram's percentile distribution, as its plotters read it; values in milliseconds."""
    values = np.sort(window.latencies)
    lines = [f"{'Value':>12s} {'Percentile':>14s} {'TotalCount':>10s} {'1/(1-Percentile)':>14s}", ""]
    for share in hgrm_shares(len(values)):
        rank = max(1, int(np.ceil(round(share * len(values), 6))))
        inverse = f"{1 / (1 - share):14.2f}" if share < 1 else ""
        lines.append(f"{values[rank - 1]:12.3f} {share:2.12f} {rank:10d} {inverse}".rstrip())
    mean, deviation = float(values.mean()), float(values.std())
    lines += [
        f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]",
        f"#[Max     = {float(values[-1]):12.3f}, Total count    = {len(values):12d}]",
    ]
    return ("\n".join(lines) + "\n").encode()


def hgrm_shares(count: int) -> list[float]:
    """Shares from 0 to 1 that lie the closer, the nearer they are to 1."""
    shares, share, step = [0.0], 0.0, 1.0
    while count * (1 - share) > 1:
        step = 2.0 ** np.floor(np.log2(1 / (1 - share)) + 1)
        share += 1 / (HGRM_TICKS * step)
        shares.append(min(share, 1.0))
    if shares[-1] < 1.0:
        shares.append(1.0)
    return shares


def _markdown(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    sides = ("left", *("right" for _ in header))
    return tabulate(rows, ["", *header], tablefmt="pipe", disable_numparse=True, colalign=sides)


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


def _level(in_flight: int, name: str) -> Callable[[Measurement], float]:
    return lambda m: m.level(in_flight, name)


def kept(teacher: Measurement, model: Measurement) -> float | None:
    """Share of the teacher's Recall@20 that a model keeps; None where the two were not measured alike."""
    gain = gains_over(teacher, model).get("recall")
    return None if gain is None else gain.ratio


@dataclass(frozen=True)
class Cell:
    """A model's figure in a row of `glance`.

    Attributes:
        value: What a bar shows; None where it is not known.
        text: The same in words.
        note: How it compares with the teacher; empty for the teacher itself.
    """

    value: float | None
    text: str
    note: str


@dataclass(frozen=True)
class Row:
    """One of the few figures that matter: its name, whether more or less of it is better, and a cell a model."""

    title: str
    more_is_better: bool
    cells: tuple[Cell, ...]


def glance(measurements: Sequence[Measurement]) -> list[Row]:
    """What a reader who knows nothing should see: quality kept, bytes an item, search time, answers a core, memory.

    Args:
        measurements: The teacher first, the student second, then others.
    """
    teacher = measurements[0]
    qualities = []
    for m in measurements:
        share, recall = kept(teacher, m), m.quality.get("recall@20")
        note = "" if recall is None else f"recall {recall:.4f}"
        qualities.append(Cell(share, "?" if share is None else f"{100 * share:.0f} %", note))

    def row(
        title: str, read: Callable[[Measurement], float | None], text: Callable[[float], str], key: str, words: str
    ) -> Row:
        better, worse = words.split("/")
        cells = []
        for m in measurements:
            value = read(m)
            note = "" if m is teacher else _times(gains_over(teacher, m).get(key), better, worse)
            cells.append(Cell(value, "?" if value is None else text(value), note))
        return Row(title, better == "more", tuple(cells))

    return [
        Row("quality kept", more_is_better=True, cells=tuple(qualities)),
        row("bytes an item", lambda m: m.item_bytes, _whole, "item_bytes", "fewer/more"),
        row("search time", _level(1, "search_us"), _microseconds, "search", "faster/slower"),
        row("answers/s a core", lambda m: m.answers_per_core, _whole, "throughput_per_core", "more/fewer"),
        row("server memory", lambda m: m.memory.get("rss"), lambda v: f"{v / 2**20:,.0f} MiB", "memory", "less/more"),
    ]


def _times(gain: Gain | None, better: str, worse: str) -> str:
    if gain is None:
        return ""
    if gain.level or abs(gain.ratio - 1) < ALIKE:
        return "the same"
    return f"{_ratio(gain.ratio)} × {better}" if gain.ratio > 1 else f"{_ratio(1 / gain.ratio)} × {worse}"


def _ratio(ratio: float) -> str:
    """A ratio with two digits, whole where it is one."""
    return f"{ratio:.0f}" if ratio >= 9.95 or abs(ratio - round(ratio)) < 0.05 else f"{ratio:.1f}"


def name_of(m: Measurement) -> str:
    """How a column or a bar calls a model."""
    return m.name if m.role is Role.OTHER else str(m.role)


def headline(measurements: Sequence[Measurement]) -> str:
    """The finding on the student, the second of the measurements, in a line.

    E.g. "The student keeps 97 % of the quality at 1/16 of the bytes, 4.1 × the answers a core".
    """
    teacher, student = measurements[:2]
    gain, share = gains_over(teacher, student), kept(teacher, student)
    fewer = gain["item_bytes"].ratio
    if abs(fewer - 1) < ALIKE:
        bytes_ = "the same bytes"
    elif fewer > 1:
        bytes_ = f"1/{_ratio(fewer)} of the bytes"
    else:
        bytes_ = f"{_ratio(1 / fewer)} × the bytes"
    said = f"The student takes {bytes_}"
    if share is not None:
        said = f"The student keeps {100 * share:.0f} % of the quality at {bytes_}"
    answers = gain.get("throughput_per_core")
    if answers is None:
        return said
    if answers.level or abs(answers.ratio - 1) < ALIKE:
        return f"{said}, as many answers a core"
    return f"{said}, {_ratio(answers.ratio)} × the answers a core"


def rivals_line(measurements: Sequence[Measurement]) -> str:
    """What the teacher made small without training keeps, in a sentence; empty where nobody measured that."""
    said = []
    for m in measurements:
        share = kept(measurements[0], m)
        if m.role in {Role.SVD, Role.PQ} and share is not None:
            said.append(f"{m.role.name} keeps {100 * share:.0f} % at {_whole(m.item_bytes)} bytes an item")
    return "The teacher made small without training: " + ", ".join(said) + "." if said else ""


def summarize(measurements: Sequence[Measurement]) -> str:
    """The rows of `glance` as a table for a terminal, then the finding."""
    rows = [
        [row.title, *(f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in row.cells)]
        for row in glance(measurements)
    ]
    header = ["", *map(name_of, measurements)]
    table = tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=("left",) * len(header))
    said = [*_failures(measurements), rivals_line(measurements), f"{headline(measurements)}."]
    return "\n".join([table, "", *filter(None, said)])


TableRow = tuple[str, Callable[[Measurement], float | None], Callable[[float], str]]
ROWS: tuple[TableRow, ...] = (
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
        (f"p{share}, {in_flight} in flight", _level(in_flight, f"p{share}_ms"), _milliseconds)
        for in_flight in LEVELS
        for share in PERCENTILES
    ),
    ("answers/s, 32 in flight", _level(32, "throughput"), _whole),
    ("load generator's core busy meanwhile", _level(32, "load_busy"), _share),
    ("answers/s that a server core can give", lambda m: m.answers_per_core, _whole),
    ("search stage on the server, 1 in flight", _level(1, "search_us"), _microseconds),
    ("ready answers a user, looked up instead", lambda m: m.answer_table, _whole),
    ("index finds of its exact top list", lambda m: m.ann_recall, _share),
    ("Recall@20", lambda m: m.quality.get("recall@20"), lambda value: f"{value:.4f}"),
    ("NDCG@20", lambda m: m.quality.get("ndcg@20"), lambda value: f"{value:.4f}"),
    ("kept of the teacher's Recall@20", lambda m: m.quality.get("kept_recall"), _share),
)


def render(measurements: Sequence[Measurement], options: LoadOptions, notes: Sequence[str]) -> str:
    """Write the comparison as Markdown: the finding, every figure, and how they came about.

    Args:
        measurements: The teacher first, the student second, then others.
        options: How they were asked.
        notes: What else a reader must know.
    """
    rows = []
    for name, value_of, text in ROWS:
        values = [value_of(m) for m in measurements]
        if any(values):
            rows.append([name, *("–" if value is None else text(value) for value in values)])
    said = [
        *findings(measurements),
        f"Closed loop over loopback gRPC, top {CUTOFF}, windows of {options.seconds:g} s, users drawn "
        f"{options.users}, medians of {options.rounds} rounds; level means that the rounds' ranges overlap.",
        "What a server core can give is one second over the server's processor time an answer; where the load "
        "generator's core is busy, answers/s are its limit.",
        _convention(measurements),
        *notes,
    ]
    table = _markdown(rows, [f"{m.role}<br>`{m.name}`, {m.index}" for m in measurements])
    return "\n".join([f"# {headline(measurements)}", "", table, "", *(f"- {sentence}" for sentence in said)])


def _convention(measurements: Sequence[Measurement]) -> str:
    conventions = sorted({str(m.quality.get("convention")) for m in measurements})
    if len(conventions) > 1:
        return "The models' quality was measured in different ways and does not compare: " + "; ".join(conventions)
    return f"Quality: {conventions[0]}. Each model answers from its own index."


def findings(measurements: Sequence[Measurement]) -> list[str]:
    """What the figures say of the student, in sentences.

    Args:
        measurements: The teacher first, the student second, then others.
    """
    teacher, student, *others = measurements
    sentences = [_against_teacher(gains_over(teacher, student))]
    return [*sentences, *(_against_other(student, other) for other in others), *_failures(measurements)]


def _failures(measurements: Sequence[Measurement]) -> list[str]:
    sentences = []
    for m in measurements:
        if m.errors:
            failed = ", ".join(f"{count} × {code}" for code, count in sorted(m.errors.items()))
            sentences.append(f"Requests to {m.name} failed: {failed}; its latencies are of the rest.")
    return sentences


def _against_teacher(gain: dict[str, Gain]) -> str:
    said = (
        f"keeps {_share(gain['recall'].ratio)} of the teacher's Recall@20" if "recall" in gain else "(quality unknown)"
    )
    figures = {"index size": "index_bytes", "bundle size": "bundle_bytes", "memory": "memory", "p50 alone": "p50_at_1"}
    figures |= {"p99 at 32": "p99_at_32", "throughput per core": "throughput_per_core", "search time": "search"}
    compared = _compared(gain, figures)
    return f"The student {said} at {gain['item_bytes'].ratio:.1f} times fewer bytes an item: {compared}."


def _against_other(student: Measurement, other: Measurement) -> str:
    figures = {"Recall@20": "recall", "p50 alone": "p50_at_1", "throughput per core": "throughput_per_core"}
    figures |= {"bytes a user": "user_bytes", "index size": "index_bytes", "bundle size": "bundle_bytes"}
    compared = _compared(gains_over(other, student), figures)
    return f"Student against {name_of(other)} at {_whole(other.item_bytes)} bytes an item: {compared}."


def _compared(gains: dict[str, Gain], figures: dict[str, str]) -> str:
    return ", ".join(f"{name} {_verdict(gains[key])}" for name, key in figures.items() if key in gains)


def _verdict(gain: Gain) -> str:
    if gain.level:
        return "level"
    return f"{gain.ratio:.2f} times better" if gain.ratio > 1 else f"{1 / gain.ratio:.2f} times worse"
