"""The frontier as a page of Markdown: the choice first, then what it was chosen from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

FIGURE_FILE = "frontier.png"
CHOSEN, PARETO, UNSERVABLE, BEATEN = "★", "●", "○", ""
COLUMNS = (
    "", "candidate", "bytes/item", "bytes/user", "kept (95 % interval)", "Recall@20", "NDCG@20", "kept, test",
    "p50 µs", "p99 µs", "training s", "build s",
)  # fmt: skip
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
        f"{UNSERVABLE} likewise, but it is no embeddings, so no bundle can hold it."
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
    lines = [COLUMNS, *(_cells(row, document["recommended"]) for row in ordered)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
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


def _cells(row: Mapping[str, Any], recommended: str | None) -> tuple[str, ...]:
    low, high = row["kept_interval"]
    reported = row["test"] or row["validation"]
    on_test = row["kept_on_test"]
    return (
        CHOSEN if row["name"] == recommended else _mark(row),
        row["name"],
        f"{row['bytes_per_item']:,}",
        f"{row['bytes_per_user']:,}",
        f"{100 * row['kept']:.1f} % ({100 * low:.1f}–{100 * high:.1f})",
        f"{reported['Recall@20']:.4f}",
        f"{reported['NDCG@20']:.4f}",
        "–" if on_test is None else f"{100 * on_test:.1f} %",
        f"{row['latency_us']['p50']:,.0f}",
        f"{row['latency_us']['p99']:,.0f}",
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
    split = "test" if document["candidates"][0]["test"] else "validation"
    conventions = document["conventions"]
    notes = [
        "Kept: share of the teacher's validation Recall@20, on which all choosing is done. "
        f"Recall@20 and NDCG@20: {split}.",
        f"Quality: {conventions['quality']}; exact search over the vectors as they are stored. A graph (HNSW) finds at "
        f"least {document['settings']['ann_recall']:.0%} of that.",
        "Bytes an item: the index file over the items: code, graph links, codebook. Bytes a user: a vector in float16 "
        "beside float16 items, else in float32; for baselines the training items that they score by.",
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
