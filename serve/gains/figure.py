"""The gains as one picture: what is kept against what it costs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from serve.gains.measure import Measurement

COLOURS = {"teacher": "#555555", "student": "#1f77b4", "svd": "#ff7f0e", "pq": "#2ca02c"}
PANELS: tuple[tuple[str, Callable[[Measurement], float], str], ...] = (
    ("Recall@20", lambda m: m.quality["recall@20"], "{:.4f}"),
    ("bytes an item", lambda m: m.item_bytes, "{:,.0f}"),
    ("bundle, MiB", lambda m: m.bundle_bytes / 2**20, "{:,.1f}"),
    ("p50, 1 in flight, µs", lambda m: m.latency["1"]["p50"], "{:,.0f}"),
    ("p99, 32 in flight, µs", lambda m: m.latency["32"]["p99"], "{:,.0f}"),
    ("search stage, µs", lambda m: m.server["1"]["search"], "{:,.0f}"),
    ("answers/s, 32 in flight", lambda m: m.throughput["32"], "{:,.0f}"),
    ("answers per server CPU s", lambda m: m.answers_per_cpu_second["32"], "{:,.0f}"),
)


def draw(measurements: Sequence[Measurement]) -> bytes:
    """Draw a bar for each model in a panel for each figure.

    Args:
        measurements: The teacher first.

    Returns:
        A PNG.

    Raises:
        ImportError: Matplotlib is not installed; the `serve` extra does not bring it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6), layout="constrained")
    names = [m.name for m in measurements]
    colours = [COLOURS[m.role] for m in measurements]
    for axes, (title, value_of, text) in zip(figure.subplots(2, 4).flat, PANELS, strict=True):
        values = [value_of(m) for m in measurements]
        bars = axes.bar(names, values, color=colours)
        axes.bar_label(bars, [text.format(value) for value in values], fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.margins(y=0.15)
        axes.tick_params(axis="x", labelrotation=20, labelsize=8)
        axes.tick_params(axis="y", labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    return content.getvalue()
