"""A new version's quality: what it keeps of its teacher, and how it ranks beside the version that is labelled now."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from distill.data.interactions import Interactions
from distill.evaluation.drift import Drift, compare_rows
from distill.evaluation.metrics import measure_ranking
from distill.evaluation.protocol import Protocol, evaluate
from distill.evaluation.ranking import rank_items
from distill.evaluation.sample import draw_users
from distill.evaluation.significance import PairedTest, compare_pairs
from distill.run import Run
from export.build.quality import as_csr
from export.bundle import Bundle, IdTable

NDCG, RECALL = "NDCG@10", "Recall@20"
CUTOFFS = (10, 20)
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Kept:
    """Test quality of a bundle and of its teacher.

    Attributes:
        student: Metric → value, of the bundle's own vectors.
        teacher: Likewise, of the teacher on the same users.
    """

    student: dict[str, float]
    teacher: dict[str, float]

    def share(self, metric: str) -> float | None:
        """What the student has of the teacher's; None where the teacher has nothing."""
        return self.student[metric] / self.teacher[metric] if self.teacher[metric] > 0 else None


@dataclass(frozen=True)
class Comparison:
    """A new version beside the one that is labelled, on the same users and the same items to be found.

    Attributes:
        test: Student's paired t of NDCG@10, new − labelled.
        labelled: Mean NDCG@10 of the labelled version.
        users: Number of users who were ranked.
    """

    test: PairedTest
    labelled: float
    users: int

    @property
    def certain_loss(self) -> float:
        """The loss that the test is sure of, as a share of the labelled version's quality; 0 where it is of none."""
        if self.labelled <= 0:
            return 0.0
        return max(0.0, -self.test.high) / self.labelled


def measure_kept(bundle: Bundle, teacher: Run, data: Interactions, eval_users: int | None) -> Kept:
    """Rank the test users by a bundle's vectors, and take the teacher's numbers where they are of the same users."""
    protocol = Protocol(eval_users=eval_users, cutoffs=CUTOFFS)
    report = evaluate(np.asarray(bundle.user_embeddings), np.asarray(bundle.item_embeddings), data, protocol)
    known = teacher.metrics.get(protocol.report_name, {})
    if known.get("convention") != report.convention or not {NDCG, RECALL} <= set(known):
        known = evaluate(teacher.user_embeddings, teacher.item_embeddings, data, protocol).metrics
    return Kept(
        {name: float(report.metrics[name]) for name in (NDCG, RECALL)},
        {name: float(known[name]) for name in (NDCG, RECALL)},
    )


def compare_versions(new: Bundle, labelled: Bundle, data: Interactions, eval_users: int | None) -> Comparison | None:
    """Rank by two versions for the same users, and test the difference user by user.

    The users are those that both versions know. To be found are today's test items, less what the labelled version was
    trained on: it was split on another day, and would find again what it has seen. Both are masked alike: today's
    training and validation items, and those of the labelled version.

    Args:
        new: Made of `data`.
        labelled: Of any earlier day.
        data: Today's.
        eval_users: As of `draw_users`.

    Returns:
        None where fewer than two users are left.
    """
    known_users, known_items = labelled.user_ids.index_many(data.user_ids), labelled.item_ids.index_many(data.item_ids)
    trained = _trained_on(labelled, known_users, known_items)
    relevant = (data.test - data.test.multiply(trained)).tocsr()
    relevant.eliminate_zeros()
    masked = ((data.train + data.validation + trained) > 0).astype(np.float32).tocsr()
    masked = (masked - masked.multiply(relevant)).tocsr()
    masked.eliminate_zeros()
    counts = np.where(known_users >= 0, np.diff(relevant.indptr), 0)
    users = draw_users(counts, data.num_items, eval_users).users
    if len(users) < 2:
        return None
    per_user = [
        _rank(new, np.arange(data.num_users), np.arange(data.num_items), masked, relevant, users),
        _rank(labelled, known_users, known_items, masked, relevant, users),
    ]
    (test,) = compare_pairs({"new": per_user[0], "labelled": per_user[1]})
    return Comparison(test, float(per_user[1].mean()), len(users))


def compare_lists(new: Bundle, labelled: Bundle, data: Interactions, eval_users: int | None) -> Drift:
    """Measure how much of their lists two versions share, by the vectors of both, for the users and items of both.

    Raises:
        SettingError: They have no user or no item in common.
    """
    rows = labelled.user_ids.index_many(data.user_ids), labelled.item_ids.index_many(data.item_ids)
    before = (labelled.user_embeddings, labelled.item_embeddings)
    return compare_rows(before, rows, (new.user_embeddings, new.item_embeddings), data, eval_users=eval_users)


def lost_share(new: IdTable, labelled: IdTable) -> float:
    """Share of the labelled version's ids that a new one does not have."""
    return float((new.index_many(labelled.take(range(len(labelled)))) < 0).mean())


def _trained_on(bundle: Bundle, known_users: Rows, known_items: Rows) -> sp.csr_matrix:
    """What a bundle was trained on or chosen by, in the rows of today: what users have, less what was held out."""
    num_items = len(bundle.item_ids)
    seen = as_csr(bundle.seen_indptr, bundle.seen_indices, num_items)
    if bundle.heldout_indptr is not None and bundle.heldout_indices is not None:
        seen = seen - seen.multiply(as_csr(bundle.heldout_indptr, bundle.heldout_indices, num_items))
    return (_select(known_users, len(bundle.user_ids)) @ seen @ _select(known_items, num_items).T).tocsr()


def _select(known: Rows, size: int) -> sp.csr_matrix:
    """Ones where row i of today is row known[i] of the bundle: shape (len(known), size)."""
    rows = np.flatnonzero(known >= 0)
    return sp.csr_matrix((np.ones(len(rows), np.float32), (rows, known[rows])), shape=(len(known), size))


def _rank(
    bundle: Bundle, user_rows: Rows, item_rows: Rows, masked: sp.csr_matrix, relevant: sp.csr_matrix, users: Rows
) -> npt.NDArray[np.float64]:
    """NDCG@10 of users, among the items that a bundle has: what it does not know it cannot recommend."""
    columns = np.flatnonzero(item_rows >= 0)
    vectors = np.asarray(bundle.user_embeddings)[user_rows[users]]
    items = np.asarray(bundle.item_embeddings)[item_rows[columns]]
    own = masked[users][:, columns].tocsr()
    ranked = columns[rank_items(vectors, items, own, np.arange(len(users)), min(CUTOFFS[0], len(columns)))]
    return measure_ranking(ranked, relevant, users, CUTOFFS[:1])[NDCG]
