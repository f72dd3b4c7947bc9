"""What a load test found, as a table, as JSON, as an HdrHistogram percentile file and as a picture."""

from __future__ import annotations

import io
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from serve.bench.experiments import Comparison
from serve.bench.summary import STAGES, percentile
from serve.bench.window import PERCENTILES, Window

HGRM_TICKS = 5
"""Lines a halving of the distance to 100 %, as HdrHistogram's own writer has them."""


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
        **{f"p{share:g}_ms": round(window.at(share), 4) if window.answered else None for share in PERCENTILES},
        "late_p99_ms": round(percentile(window.late, 99), 4) if window.answered else None,
        "load_busy": round(window.load_busy, 3),
    }
    if window.answered:
        found["stages_p50_us"] = {name: percentile(window.stages[:, column], 50) for column, name in enumerate(STAGES)}
    if slo_ms is not None:
        found["slo_ms"] = slo_ms
        found["goodput_per_second"] = round(window.goodput(slo_ms), 1)
    return found


def render(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """A Markdown table with a column a target."""
    names = list(rows)
    keys = [key for key in next(iter(rows.values())) if key not in {"errors", "stages_p50_us"}]
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for key in keys:
        values = [rows[name].get(key) for name in names]
        if any(value is not None for value in values):
            cells = ["–" if value is None else f"{value:,}" for value in values]
            lines.append(f"| {key.replace('_', ' ')} | " + " | ".join(cells) + " |")
    for column in STAGES:
        cells = [f"{rows[name].get('stages_p50_us', {}).get(column, float('nan')):,.0f}" for name in names]
        lines.append(f"| server {column} p50 µs | " + " | ".join(cells) + " |")
    for name in names:
        if rows[name]["errors"]:
            failed = ", ".join(f"{count:,} × {code}" for code, count in rows[name]["errors"].items())
            lines.append(f"\n{name}: failed {failed}")
    return "\n".join(lines)


def render_comparison(comparison: Comparison) -> str:
    """Second over first, median over rounds and range."""
    lines = []
    figures = (("answers a second", lambda window: window.throughput), ("p50", lambda window: window.at(50)),
               ("p99", lambda window: window.at(99)))  # fmt: skip
    for name, figure in figures:
        ratios = comparison.ratios(figure)
        lines.append(f"{name}: second / first {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
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


def draw(windows: Mapping[str, Sequence[float]]) -> bytes:
    """Latency against percentile, the tail stretched; PNG.

    Args:
        windows: Name → latencies in milliseconds.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, latencies in windows.items():
        values = np.sort(np.asarray(latencies))
        shares = np.arange(len(values)) / len(values)
        axes.plot(1 / (1 - shares), values, label=name, linewidth=1.6)
    axes.set_xscale("log")
    ticks = [1, 2, 10, 100, 1000, 10_000]
    axes.set_xticks(ticks, ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"])
    axes.set_xlabel("percentile of requests")
    axes.set_ylabel("latency, ms")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()
