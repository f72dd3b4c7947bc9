"""`frontier.json`: all that was measured and what follows from it. Other programs may read it; fields are only added.

format              1
data                {name, path, fingerprint, users, items, train, validation, test}
teacher             {run, backbone, dim, candidate}; `candidate` names its row below
settings            methods, dims, precisions, baselines, backbone, training, runs, ann_recall, seed
limits              {max_bytes_per_item, max_p99_ms, min_kept}; null is no limit
conventions         {quality, latency, pareto}, in words
candidates          a list; the teacher in float32 first
    name            unique, e.g. "freqd+ce-d16-int8-hnsw16"
    method          a distillation method, "teacher", "svd" or a baseline
    dim             d; 0 for a baseline
    precision       "float32", "float16", "int8", or "pq16" for codes of 16 bytes
    run             run directory of a student or the teacher, else null
    trained         whether it is a student
    servable        whether a bundle can hold it
    validation      {"Recall@20", "NDCG@20"}, on which all choosing is done
    test            the same, or null without test items; for reporting
    kept            share of the teacher's validation Recall@20
    kept_interval   [low, high]: 95 % confidence interval of it, over users
    kept_on_test    the same share on test, or null
    bytes_per_item  of the index file: code, graph links, share of codebook
    code_bytes      of the code alone
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
runner_up, next_cheaper, undistilled   names or null (see `export/frontier/recommendation.py`)
relaxations         where nothing fits: [{values: {limit: value}, candidate}], smallest step first
reasons, notes      sentences
commands            what to run next
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from export.frontier.comparison import Row
from export.frontier.measuring import CONVENTION, TIMED
from export.frontier.pareto import KEPT_STEP, TIME_STEP
from export.frontier.recommendation import Limits, Recommendation

FORMAT = 1
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
        reasons: Why, in sentences.
        notes: What else a reader must know.
        commands: What to run next.
    """
    return {
        "format": FORMAT,
        **about,
        "limits": asdict(limits),
        "conventions": {"quality": CONVENTION, "latency": TIMED, "pareto": DOMINANCE},
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
