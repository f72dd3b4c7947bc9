"""The comparison as one picture: what is kept, and what it costs."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from serve.bench.contestants import Role
from serve.bench.measurement import Measurement

COLOURS = {Role.TEACHER: "#6b6b6b", Role.STUDENT: "#1f77b4", Role.SVD: "#ff7f0e", Role.PQ: "#2ca02c"}
Panel = tuple[str, Callable[[Measurement], float | None], str]
PANELS: tuple[Panel, ...] = (
    ("Recall@20", lambda m: m.quality.get("recall@20"), "{:.4f}"),
    ("bytes an item", lambda m: m.item_bytes, "{:,.0f}"),
    ("bundle, MiB", lambda m: m.bundle_bytes / 2**20, "{:,.1f}"),
    ("process memory, MiB", lambda m: m.memory.get("rss", 0) / 2**20, "{:,.0f}"),
    ("p50, 1 in flight, ms", lambda m: m.level(1, "p50_ms"), "{:.2f}"),
    ("p99, 32 in flight, ms", lambda m: m.level(32, "p99_ms"), "{:.1f}"),
    ("search stage, µs", lambda m: m.level(1, "search_us"), "{:,.0f}"),
    ("server CPU an answer, µs", lambda m: m.level(32, "server_cpu_us"), "{:,.0f}"),
)


def draw(measurements: Sequence[Measurement]) -> bytes:
    """Draw a panel for each figure with a bar for each model.

    Args:
        measurements: The teacher first.

    Returns:
        A PNG.

    Raises:
        ImportError: Matplotlib is not installed; the `serve` extra does not bring it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 6.2), layout="constrained")
    names = [m.name for m in measurements]
    colours = [COLOURS[m.role] for m in measurements]
    for axes, (title, value_of, text) in zip(figure.subplots(2, 4).flat, PANELS, strict=True):
        values = [value_of(m) or 0.0 for m in measurements]
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
