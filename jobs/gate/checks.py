"""The gate: each check measures something of a new version and holds it to a bound of the spec."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from distill.data.interactions import Interactions
from distill.data.prepare import say_nothing
from distill.errors import SettingError
from distill.run import Run
from export.bundle import Bundle, open_bundle
from jobs.gate.answering import Answering, measure_answers
from jobs.gate.quality import NDCG, RECALL, Comparison, Kept, compare_lists, compare_versions, lost_share, measure_kept
from jobs.record.state import GateRow
from jobs.spec.sections import OFF, GateSpec

NO_TEST = (
    "no test interactions to measure on: prepare with a split that has some ([data] split, ratios), or turn it off"
)
NO_VERSION = "no version has the label yet"


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
        measured: None where there is nothing to measure.
        says: In words.
        passes: Whether nothing to measure is no reason to hold.
    """

    measured: float | None
    says: str
    passes: bool = False


class Candidate:
    """What the gate looks at; each part is measured once, when a check first asks for it.

    Args:
        path: The bundle.
        model: Its name.
        data: What it was made of.
        teacher: What its student was distilled from.
        labelled: The bundle that is `stable`, or without one the label's; None where there is neither.
        eval_users: On how many users quality is measured, as of `draw_users`.
    """

    def __init__(
        self, path: Path, model: str, data: Interactions, teacher: Run, labelled: Path | None, eval_users: int | None
    ) -> None:
        self.path, self.model, self.data, self.teacher = path, model, data, teacher
        self.eval_users = eval_users
        self.bundle = open_bundle(path)
        self.labelled: Bundle | None = None if labelled is None else open_bundle(labelled)

    @cached_property
    def kept(self) -> Kept | None:
        """Quality beside the teacher's; None without test interactions."""
        return measure_kept(self.bundle, self.teacher, self.data, self.eval_users) if self.data.test.nnz else None

    @cached_property
    def comparison(self) -> Comparison | None:
        """Quality beside the labelled version's; None where there is no such comparison."""
        if self.labelled is None or not self.data.test.nnz:
            return None
        return compare_versions(self.bundle, self.labelled, self.data, self.eval_users)

    @cached_property
    def answering(self) -> Answering:
        """How it answers."""
        return measure_answers(self.path, self.model)

    @property
    def quality(self) -> dict[str, float]:
        """Metrics of the student, and of the teacher by "teacher " and the metric; empty where no check asked."""
        kept: Kept | None = vars(self).get("kept")
        if kept is None:
            return {}
        return {**kept.student, **{f"teacher {name}": value for name, value in kept.teacher.items()}}


@dataclass(frozen=True)
class Check:
    """A check.

    Attributes:
        find: Measures it.
        kind: Whether the bound is the least or the most.
        look: What to look at where it fails.
    """

    find: Callable[[Candidate], Finding]
    kind: Literal["least", "most"]
    look: str


def _kept(metric: str) -> Callable[[Candidate], Finding]:
    def find(candidate: Candidate) -> Finding:
        kept = candidate.kept
        share = None if kept is None else kept.share(metric)
        if kept is None:
            return Finding(None, NO_TEST)
        if share is None:
            return Finding(None, f"the teacher's test {metric} is 0: look at the teacher first")
        return Finding(share, f"test {metric} {kept.student[metric]:.4f}, the teacher's {kept.teacher[metric]:.4f}")

    return find


def _worse_than_stable(candidate: Candidate) -> Finding:
    if candidate.labelled is None:
        return Finding(None, NO_VERSION, passes=True)
    if not candidate.data.test.nnz:
        return Finding(None, NO_TEST)
    found = candidate.comparison
    if found is None:
        return Finding(None, "fewer than two test users are known to both versions: the ids of the data have changed")
    test = found.test
    says = (
        f"test {NDCG} of {found.users:,} users: {test.difference:+.4f} against {found.labelled:.4f} of version "
        f"{candidate.labelled.manifest.model.version}, 95 % interval {test.low:+.4f} to {test.high:+.4f}, "
        f"p {test.p_value:.3g}"
    )
    return Finding(found.certain_loss, says)


def _list_overlap(candidate: Candidate) -> Finding:
    if candidate.labelled is None:
        return Finding(None, NO_VERSION, passes=True)
    try:
        found = compare_lists(candidate.bundle, candidate.labelled, candidate.data, candidate.eval_users)
    except SettingError as error:
        return Finding(None, f"version {candidate.labelled.manifest.model.version}: {error}")
    spread = f", standard error {found.standard_error:.3f}" if found.standard_error else ""
    says = (
        f"of the {found.k} best of {found.users:,} users, as version {candidate.labelled.manifest.model.version} has "
        f"them, among the {found.items_kept:,} items of both{spread}"
    )
    return Finding(found.overlap, says)


def _index_recall(candidate: Candidate) -> Finding:
    found = candidate.answering
    return Finding(found.recall, f"of the exact top 20 of {found.users:,} users, as the server answers")


def _p99(candidate: Candidate) -> Finding:
    found = candidate.answering
    return Finding(found.p99_ms, f"median {found.p50_ms:.3g} ms; {found.users:,} answers in process, one at a time")


def _bytes_per_item(candidate: Candidate) -> Finding:
    size = candidate.bundle.index_path.stat().st_size / len(candidate.bundle.item_ids)
    card = candidate.bundle.manifest.index
    return Finding(size, f"of the file of index {card.factory}, for {len(candidate.bundle.item_ids):,} items")


def _lost(kind: Literal["users", "items"]) -> Callable[[Candidate], Finding]:
    def find(candidate: Candidate) -> Finding:
        if candidate.labelled is None:
            return Finding(None, NO_VERSION, passes=True)
        new, before = (
            bundle.user_ids if kind == "users" else bundle.item_ids for bundle in (candidate.bundle, candidate.labelled)
        )
        return Finding(lost_share(new, before), f"{len(new):,} {kind}, {len(before):,} in the labelled version")

    return find


CHECKS: Mapping[str, Check] = {
    "kept_ndcg": Check(
        _kept(NDCG),
        "least",
        "the student's learning curve: more epochs, a larger [student] dim, or another method; a teacher that became "
        "better alone lowers it too",
    ),
    "kept_recall": Check(_kept(RECALL), "least", "what kept_ndcg says"),
    "worse_than_stable": Check(
        _worse_than_stable,
        "most",
        "today's interactions (counts of prepare against the last run's, a source that is cut or doubled), then the "
        "teacher's quality, then the student's",
    ),
    "list_overlap": Check(
        _list_overlap,
        "least",
        "what may be out of order: ids of today's source against yesterday's ([data] user_column, item_column), rows "
        "of [teacher.import]; then the learning curve. Where the change is meant, turn it off for one run",
    ),
    "index_recall": Check(
        _index_recall, "least", "[export] ann_recall and budget; 'lowpass models show' lists the indexes measured"
    ),
    "bytes_per_item": Check(
        _bytes_per_item, "most", "[export] max_index_bytes_per_item, or a smaller [student] dim, or dtype float16"
    ),
    "p99_ms": Check(
        _p99,
        "most",
        "what else ran on this machine; then the index ([export] ann_recall) and the size of the catalogue",
    ),
    "lost_users": Check(
        _lost("users"), "most", "the source (is a day or a shard of it missing?) and [data] user_minimum"
    ),
    "lost_items": Check(
        _lost("items"), "most", "the source (is a day or a shard of it missing?) and [data] item_minimum"
    ),
}
"""In the order of a report; each has a bound of the same name in `GateSpec`."""


def judge(candidate: Candidate, bounds: GateSpec, began: Callable[[str], object] = say_nothing) -> list[GateRow]:
    """Measure what is not off, and hold it to its bound.

    Args:
        candidate: A new version.
        bounds: Of the spec.
        began: Told the name of each check that begins.
    """
    rows = []
    for name, check in CHECKS.items():
        bound = getattr(bounds, name)
        if bound == OFF:
            rows.append(GateRow(name, None, None, passed=True, look="off"))
            continue
        began(name)
        rows.append(_judge_one(name, check, check.find(candidate), float(bound)))
    return rows


def _judge_one(name: str, check: Check, finding: Finding, bound: float) -> GateRow:
    if finding.measured is None:
        look = finding.says if finding.passes else f"{finding.says}; look at {check.look}"
        return GateRow(name, None, bound, finding.passes, look)
    keeps = finding.measured >= bound if check.kind == "least" else finding.measured <= bound
    return GateRow(
        name, finding.measured, bound, keeps, finding.says if keeps else f"{finding.says}; look at {check.look}"
    )
