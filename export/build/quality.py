"""The one measure of quality of export: full ranking of held-out items with the seen ones masked.

Students, teachers, rivals and the candidates of a frontier are measured alike, from arrays that every bundle has, so
that the numbers compare. What was measured of a run is kept beside it, so that a teacher is ranked once and not with
each student that is exported.

References:
    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002 (NDCG).
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from tqdm import tqdm

from distill.data.interactions import Interactions
from distill.evaluation.metrics import measure_ranking
from distill.evaluation.ranking import TIE_SEED, rank_items
from distill.evaluation.sample import SAMPLE_SEED, draw_users
from distill.finite import blocks_of_rows
from distill.run import Run
from distill.storage import write_file
from export.bundle import Bundle, BundleContents

CUTOFF = 20
METRICS = {"recall@20": f"Recall@{CUTOFF}", "ndcg@20": f"NDCG@{CUTOFF}"}
"""Name in a manifest → that of the evaluation."""
PROTOCOL = "full ranking, test items relevant, train+validation items masked, mean over"
CONVENTION = f"{PROTOCOL} users with relevant items"
"""Of a bundle: what is held out stays answerable, whatever counts as already had."""
QUALITY_FILE = "export_quality.json"
"""In a run: fingerprint → what was measured."""
MOST_KEPT = 32
"""Entries of that file; the oldest go first."""


def measure_quality(
    user_embeddings: npt.NDArray[Any],
    item_embeddings: npt.NDArray[Any],
    seen: sp.csr_matrix,
    relevant: sp.csr_matrix,
    eval_users: int | None = None,
) -> dict[str, Any]:
    """Recall@20 and NDCG@20, averaged over users with relevant items, or a sample of them.

    Args:
        user_embeddings: Shape (U, d).
        item_embeddings: Shape (I, d).
        seen: CSR of shape (U, I); these items are masked, unless they are relevant.
        relevant: CSR of shape (U, I).
        eval_users: As of `draw_users`, which draws the same users for all models of a data set.

    Returns:
        {"recall@20", "ndcg@20", "convention"}, of a sample also "eval_users", its size, and "standard_error" of both
        metrics; empty where nothing is relevant.
    """
    sample = draw_users(np.diff(relevant.indptr), relevant.shape[1], eval_users)
    if len(sample.users) == 0:
        return {}
    masked = (seen - seen.multiply(relevant)).tocsr()
    masked.eliminate_zeros()
    length = min(CUTOFF, item_embeddings.shape[0])
    ranked = rank_items(user_embeddings, item_embeddings, masked, sample.users, length, progress=True)
    per_user = measure_ranking(ranked, relevant, sample.users, [CUTOFF])
    quality: dict[str, Any] = {name: float(per_user[metric].mean()) for name, metric in METRICS.items()}
    quality["convention"] = f"{PROTOCOL} {sample.words}"
    if sample.is_drawn:
        quality["eval_users"] = len(sample.users)
        quality["standard_error"] = {name: sample.standard_error(per_user[key]) for name, key in METRICS.items()}
    return quality


def as_csr(indptr: npt.NDArray[Any], indices: npt.NDArray[Any], num_items: int) -> sp.csr_matrix:
    """A CSR of ones, float32 of shape (U, I), from the arrays of a bundle."""
    shape = (len(indptr) - 1, num_items)
    return sp.csr_matrix((np.ones(len(indices), dtype=np.float32), np.array(indices), np.array(indptr)), shape=shape)


def measure_bundle(bundle: Bundle | BundleContents, eval_users: int | None = None) -> dict[str, Any]:
    """Measure a bundle, or what is to become one, from its own arrays; empty where it has no held-out items."""
    if bundle.heldout_indptr is None or bundle.heldout_indices is None:
        return {}
    num_items = len(bundle.item_ids)
    seen = as_csr(bundle.seen_indptr, bundle.seen_indices, num_items)
    relevant = as_csr(bundle.heldout_indptr, bundle.heldout_indices, num_items)
    return measure_quality(bundle.user_embeddings, bundle.item_embeddings, seen, relevant, eval_users)


@dataclass(frozen=True)
class Measuring:
    """How the bundles of one data set are measured.

    Attributes:
        data: The data set.
        eval_users: As of `measure_quality`.
    """

    data: Interactions
    eval_users: int | None = None

    def measure(self, contents: BundleContents, run: Path | None, teacher: Run | None) -> dict[str, Any]:
        """Measure what is to become a bundle, beside its teacher.

        Args:
            contents: Made of `data`.
            run: The run directory that it was made of, or None.
            teacher: Whose share is kept, or None.

        Returns:
            What the manifest says of the quality.
        """
        quality = {"convention": CONVENTION, **self._measure_once(contents, run)}
        if teacher is None:
            return quality
        users, items = teacher.user_embeddings, teacher.item_embeddings
        reference = self._measure_once(replace(contents, user_embeddings=users, item_embeddings=items), teacher.path)
        return quality | compare_with_teacher(quality, reference)

    def _measure_once(self, contents: BundleContents, run: Path | None) -> dict[str, Any]:
        """Measure, or read what was measured of the same vectors, data and users."""
        if run is None or not self.data.test.nnz:
            return measure_bundle(contents, self.eval_users)
        fingerprint = self._fingerprint(contents)
        kept = _read_kept(run)
        if fingerprint in kept:
            tqdm.write(f"{run}: quality as measured before ({QUALITY_FILE})", file=sys.stderr)
            return kept[fingerprint]
        quality = measure_bundle(contents, self.eval_users)
        _keep(run, {**kept, fingerprint: quality})
        return quality

    def _fingerprint(self, contents: BundleContents) -> str:
        """SHA-256 of all on which quality depends; vectors count as float32, in which they are ranked."""
        sample = draw_users(np.diff(self.data.test.indptr), self.data.num_items, self.eval_users)
        made_of = [
            self.data.fingerprint,
            PROTOCOL,
            CUTOFF,
            len(sample.users),
            sample.num_relevant,
            SAMPLE_SEED,
            TIE_SEED,
        ]
        digest = hashlib.sha256(json.dumps(made_of).encode())
        for side in (contents.user_embeddings, contents.item_embeddings):
            digest.update(str(side.shape).encode())
            for _, block in blocks_of_rows(side):
                digest.update(block.astype(np.float32).tobytes())
        return digest.hexdigest()


def _read_kept(run: Path) -> dict[str, dict[str, Any]]:
    """What the file of a run holds; nothing where there is none that can be read, as it can be measured again."""
    try:
        kept = json.loads((run / QUALITY_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict):
        return {}
    return {
        key: value for key, value in kept.items() if isinstance(value, dict) and {*METRICS, "convention"} <= {*value}
    }


def _keep(run: Path, kept: Mapping[str, Any]) -> None:
    latest = dict(list(kept.items())[-MOST_KEPT:])
    if run.is_dir():
        with suppress(OSError):  # a run that may only be read is measured each time
            write_file(run / QUALITY_FILE, (json.dumps(latest, indent=2) + "\n").encode())


def compare_with_teacher(quality: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, float]:
    """The teacher's numbers and the share of its recall that is kept, as the manifest names them.

    Args:
        quality: {"recall@20", "ndcg@20", "convention"} of the model; may lack the numbers.
        reference: The same of its teacher; of other users it says nothing.
    """
    if quality.get("convention") != reference.get("convention", quality.get("convention")):
        return {}
    if not quality.get("recall@20") or not reference.get("recall@20"):
        return {}
    return {
        "teacher_recall@20": float(reference["recall@20"]),
        "teacher_ndcg@20": float(reference["ndcg@20"]),
        "kept_recall": float(quality["recall@20"]) / float(reference["recall@20"]),
    }
