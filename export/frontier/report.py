"""The frontier as a page of Markdown: the choice first, then what it was chosen from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FIGURE_FILE = "frontier.png"
CHOSEN, PARETO, UNSERVABLE, BEATEN = "★", "●", "○", ""
LEFT_ALIGNED = 2


def render_summary(document: Mapping[str, Any]) -> str:
    """The choice, why, what to run next, and the Pareto set: what the terminal shows.

    Args:
        document: What `frontier.json` holds.
    """
    shown = {*document["pareto"], document["recommended"], document["teacher"]["candidate"]}
    rows = [row for row in document["candidates"] if row["name"] in shown]
    legend = (
        f"{CHOSEN} recommended; {PARETO} in the Pareto set: nothing beats it in quality, bytes and time at once; "
        f"{UNSERVABLE} likewise, but it has no embeddings, so no bundle can hold it."
    )
    parts = [_lead(document), _commands(document), render_table(rows, document), legend]
    return "\n\n".join(part for part in parts if part)


def _lead(document: Mapping[str, Any]) -> str:
    first, *others = document["reasons"]
    return "\n".join([first, "", *(f"- {sentence}" for sentence in others)]).rstrip()


def _commands(document: Mapping[str, Any]) -> str:
    return (
        "\n".join(["Next:", "", *(f"    {command}" for command in document["commands"])])
        if document["commands"]
        else ""
    )


def render_table(rows: Sequence[Mapping[str, Any]], document: Mapping[str, Any]) -> str:
    """A Markdown table, padded so that it can be read without rendering; fewest bytes an item first.

    Args:
        rows: Entries of `candidates`.
        document: What `frontier.json` holds.
    """
    ordered = sorted(rows, key=lambda row: (row["bytes_per_item"], -row["kept"]))
    lines = [_header(_reported_split(document)), *(_cells(row, document["recommended"]) for row in ordered)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = "|".join(
        "-" * (width + 2) if n < LEFT_ALIGNED else "-" * (width + 1) + ":" for n, width in enumerate(widths)
    )
    text = [_line(line, widths) for line in lines]
    return "\n".join([text[0], f"|{rule}|", *text[1:]])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [
        cell.ljust(width) if column < LEFT_ALIGNED else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "| " + " | ".join(padded) + " |"


def _reported_split(document: Mapping[str, Any]) -> str:
    return "test" if document["candidates"][0]["test"] else "validation"


def _header(split: str) -> tuple[str, ...]:
    return (
        "",
        "candidate",
        "bytes/item",
        "bytes/user",
        "MB in all",
        "kept (95 % interval)",
        f"{split} Recall@20",
        f"{split} NDCG@20",
        "p50, p99 µs",
        "training s",
        "build s",
    )


def _cells(row: Mapping[str, Any], recommended: str | None) -> tuple[str, ...]:
    low, high = row["kept_interval"]
    reported, on_test, latency = row["test"] or row["validation"], row["kept_on_test"], row["latency_us"]
    return (
        CHOSEN if row["name"] == recommended else _mark(row),
        row["name"],
        f"{row['bytes_per_item']:,}",
        f"{row['bytes_per_user']:,}",
        f"{row['total_bytes'] / 1e6:,.2f}",
        f"{100 * row['kept']:.1f} % ({100 * low:.1f}–{100 * high:.1f})",
        f"{reported['Recall@20']:.4f}" + ("" if on_test is None else f" ({100 * on_test:.1f} %)"),
        f"{reported['NDCG@20']:.4f}",
        f"{latency['p50']:,.0f}, {latency['p99']:,.0f}",
        f"{row['training_seconds']:,.0f}" if row["trained"] else "–",
        f"{row['build_seconds']:,.1f}",
    )


def _mark(row: Mapping[str, Any]) -> str:
    if not row["pareto"]:
        return BEATEN
    return PARETO if row["servable"] else UNSERVABLE


def render_page(document: Mapping[str, Any]) -> str:
    """The whole page, `frontier.md`.

    Args:
        document: What `frontier.json` holds.
    """
    data, teacher = document["data"], document["teacher"]
    title = (
        f"# Which compressed model to serve: {data['name']}\n\n{data['users']:,} users, {data['items']:,} items; "
        f"teacher `{teacher['run']}` ({teacher['backbone']}, d = {teacher['dim']})."
    )
    conventions = document["conventions"]
    notes = [
        "Kept: share of the teacher's validation Recall@20, on which all choosing is done. What follows a Recall@20 of "
        "test in brackets is the share kept on test, which chooses nothing.",
        f"Quality: {conventions['quality']}; exact search over the vectors as they are stored. A graph (HNSW) finds at "
        f"least {document['settings']['ann_recall']:.0%} of that.",
        "Bytes an item: the index file over the items: code, graph links, codebook. Bytes a user: a vector in float16 "
        "beside float16 items, else in float32; for baselines the training items that they score by. MB in all: of all "
        "items and users.",
        f"Latency: {conventions['latency']}.",
        f"Pareto set: {conventions['pareto']}.",
        "Training: of the student alone, the teacher's left out.",
        *document["notes"],
    ]
    parts = [
        title,
        "## Recommendation",
        render_summary(document),
        f"![Quality against bytes and against latency]({FIGURE_FILE})",
        "## How it was measured",
        "\n".join(f"- {note}" for note in notes),
        f"## All {len(document['candidates'])} candidates",
        render_table(document["candidates"], document),
    ]
    return "\n\n".join(parts) + "\n"
