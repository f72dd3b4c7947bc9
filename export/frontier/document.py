"""The document of a frontier: `frontier.json`, and the same as a page of Markdown, the choice before what it is from.

Other programs may read `frontier.json`; fields are only added:

format              1
data                {name, path, fingerprint, users, items, train, validation, test}
teacher             {run, backbone, dim, candidate}; `candidate` names its row below
settings            methods, dims, precisions, baselines, backbone, training, co_teachers, runs, ann_recall, seed
limits              {max_bytes_per_item, max_p99_ms, min_kept}; null is no limit
conventions         {quality, latency, pareto}, in words
candidates          a list; the teacher in float32 first
    name            unique, e.g. "freqd+ce-d16-int8" for a scan, "teacher-float32-hnsw16" for another index
    method          a distillation method, "teacher", "svd" or a baseline
    dim             d; 0 for a baseline
    precision       "float32", "float16", "int8", or "pq16" for codes of 16 bytes
    run             run directory of a student or the teacher, else null
    trained         whether it is a student
    taught_by       its teacher and co-teachers, e.g. "teacher + 0.5 turbocf"; null where nobody taught
    servable        whether a bundle can hold it
    validation      {"Recall@20", "NDCG@20"}, on which all choosing is done
    test            the same, or null without test items; for reporting
    kept            share of the teacher's validation Recall@20
    kept_interval   [low, high]: 95 % confidence interval of it, over users
    kept_on_test    the same share on test, or null
    bytes_per_item  of the index file (code, graph links, share of codebook), and of the stored row where `k_factor`
                    has what is found scored anew
    code_bytes      that a query reads of an item: its code, and that row
    bytes_per_user  of the user's vector (float16 beside float16 items, else float32); of a user's training items,
                    for a baseline that scores by them
    total_bytes     of all items and all users together
    index           {factory, search, ann_recall}; factory "scores" for a baseline
    latency_us      {p50, p99} of a single query
    training_seconds, build_seconds   the teacher's training is in neither
    pareto          whether no other candidate beats it
    fits            whether it is servable and within the limits
pareto              names of the Pareto set
recommended         a name, or null where nothing fits
level               names that fit and cannot be told from the best, highest validation Recall@20 first
runner_up, next_cheaper, undistilled   names or null (see `export/frontier/choice.py`)
relaxations         where nothing fits: [{values: {limit: value}, candidate}], smallest step first
reasons, notes      sentences
commands            what to run next
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from distill.report.tables import Table, render_markdown
from export.frontier.candidates import KEPT_STEP, TIME_STEP
from export.frontier.choice import Limits, Recommendation, Row
from export.frontier.measuring import TIMED

FORMAT = 1
FIGURE_FILE = "frontier.png"
CHOSEN, PARETO, UNSERVABLE, BEATEN = "★", "●", "○", ""
DOMINANCE = (
    "validation quality kept, bytes an item and p50 of a query; quality in steps of "
    f"{KEPT_STEP:.0%} of the teacher's, time in steps of {TIME_STEP:.0%}"
)


def build_document(
    about: Mapping[str, Any],
    rows: Sequence[Row],
    limits: Limits,
    found: Recommendation,
    *,
    quality: str,
    reasons: Sequence[str],
    notes: Sequence[str],
    commands: Sequence[str],
) -> dict[str, Any]:
    """Put everything into the shape above.

    Args:
        about: `data`, `teacher` and `settings`.
        rows: All candidates, the teacher in float32 first.
        limits: The budget.
        found: The recommendation.
        quality: How quality was measured, and on whom.
        reasons: Why, in sentences.
        notes: What else a reader must know.
        commands: What to run next.
    """
    return {
        "format": FORMAT,
        **about,
        "limits": asdict(limits),
        "conventions": {"quality": quality, "latency": TIMED, "pareto": DOMINANCE},
        "candidates": [{**_describe(row, limits), "total_bytes": _total(row, about["data"])} for row in rows],
        "pareto": [row.name for row in rows if row.pareto],
        "recommended": _name(found.chosen),
        "level": [row.name for row in found.level],
        "runner_up": _name(found.runner_up),
        "next_cheaper": _name(found.next_cheaper),
        "undistilled": _name(found.undistilled),
        "relaxations": [{"values": each.values, "candidate": each.row.name} for each in found.relaxations],
        "reasons": list(reasons),
        "notes": list(notes),
        "commands": list(commands),
    }


def _name(row: Row | None) -> str | None:
    return row.name if row else None


def _total(row: Row, data: Mapping[str, int]) -> int:
    candidate = row.candidate
    return candidate.bytes_per_item * data["items"] + candidate.bytes_per_user * data["users"]


def _describe(row: Row, limits: Limits) -> dict[str, Any]:
    candidate = row.candidate
    quality = candidate.quality
    return {
        "name": candidate.name,
        "method": candidate.method,
        "dim": candidate.dim,
        "precision": candidate.precision,
        "run": None if candidate.run is None else str(candidate.run),
        "trained": candidate.trained,
        "taught_by": candidate.taught_by or None,
        "servable": candidate.servable,
        "validation": _round(quality.validation),
        "test": _round(quality.test) if quality.test else None,
        "kept": round(row.kept, 6),
        "kept_interval": [round(end, 6) for end in row.interval],
        "kept_on_test": None if row.kept_on_test is None else round(row.kept_on_test, 6),
        "bytes_per_item": candidate.bytes_per_item,
        "code_bytes": candidate.code_bytes,
        "bytes_per_user": candidate.bytes_per_user,
        "index": {
            "factory": candidate.index,
            "search": candidate.search,
            "ann_recall": round(candidate.ann_recall, 6),
        },
        "latency_us": asdict(candidate.latency),
        "training_seconds": round(candidate.training_seconds, 2),
        "build_seconds": round(candidate.build_seconds, 3),
        "pareto": row.pareto,
        "fits": candidate.servable and not limits.excesses(row),
    }


def _round(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 6) for name, value in metrics.items()}


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
    header = _header(_reported_split(document))
    cells = [_cells(row, document["recommended"]) for row in ordered]
    return render_markdown(Table("", header, cells, words=2))


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
        "taught by",
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
        row["taught_by"] or "–",
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
        f"Quality: {conventions['quality']}; exact search over the vectors as they are stored. An index that is no "
        f"scan is one that 'lowpass export' would choose, and finds at least {document['settings']['ann_recall']:.0%} "
        "of that.",
        "Bytes an item: the index file over the items (code, graph links, codebook), and the stored vector where what "
        "is found is scored anew. Bytes a user: a vector in float16 beside float16 items, else in float32; for "
        "baselines the training items that they score by. MB in all: of all items and users.",
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
