"""The whole check of a bundle: its files, its index, and that its graphs compute what its arrays say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from export.build.ann import ask, open_index, set_search
from export.build.onnx_graphs import open_session
from export.bundle import K_FACTOR, Bundle, WrongAnswer, open_bundle
from export.bundle.manifest import ANSWER_ROWS_FILE

CHECKED_USERS = 8
CHECKED_K = 20
TOLERANCE = 1e-4


def verify_bundle(path: Path) -> dict[str, Any]:
    """Check everything about a bundle.

    Args:
        path: The bundle's directory; a draft may be verified like what it is to become.

    Returns:
        What was checked: files, bytes, bundle_id, users compared, largest differences; 0 for a table that is not there.

    Raises:
        BundleError: Its leaf says what is wrong.
    """
    bundle = open_bundle(path, verify=True)
    users = np.unique(np.linspace(0, len(bundle.user_ids) - 1, CHECKED_USERS).astype(np.int64))
    return {
        "path": str(path),
        "bundle_id": bundle.manifest.bundle_id,
        "files": len(bundle.manifest.files),
        "bytes": bundle.manifest.total_bytes,
        "users_compared": len(users),
        "index_largest_difference": _check_index(bundle, users),
        "answers_largest_difference": _check_answers(bundle, users),
        "recommend_largest_difference": _check_recommend(bundle, users),
        "fold_in_largest_difference": _check_fold_in(bundle, users),
    }


def _scores(bundle: Bundle, users: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    vectors = np.asarray(bundle.user_embeddings[users], dtype=np.float32)
    scores: npt.NDArray[np.float32] = vectors @ np.asarray(bundle.item_embeddings, dtype=np.float32).T
    return scores


def _check_index(bundle: Bundle, users: npt.NDArray[np.int64]) -> float:
    model = bundle.manifest.model
    index = open_index(bundle.index_path, len(bundle.item_ids), model.dim)
    card = bundle.manifest.index
    set_search(index, card.search)
    queries = np.ascontiguousarray(bundle.user_embeddings[users], dtype=np.float32)
    k = min(CHECKED_K, len(bundle.item_ids))
    found, rows = ask(index, card.search, bundle.item_embeddings, queries, k)
    scores = _scores(bundle, users)
    # Scored anew, the items found by an index of other vectors have the right scores; they are the wrong items.
    worst = np.sort(scores, axis=1)[:, -k] - TOLERANCE * max(1.0, float(np.abs(scores).max()))
    recall = float((found >= worst[:, None]).mean())
    if K_FACTOR in card.search and recall < card.ann_recall / 2:
        raise WrongAnswer(
            f"{bundle.index_path}: finds {recall:.1%} of the exact top {k}, manifest says {card.ann_recall:.1%};"
            " export the bundle again"
        )
    return _compare(bundle.index_path, found, rows, scores, complete=False)


def _check_answers(bundle: Bundle, users: npt.NDArray[np.int64]) -> float:
    if bundle.answer_rows is None or bundle.answer_scores is None:
        return 0.0
    path = bundle.path / ANSWER_ROWS_FILE
    rows, scores = bundle.answer_rows[users].astype(np.int64), _scores(bundle, users)
    for number, user in enumerate(users):
        scores[number, bundle.seen(int(user))] = -np.inf
    left = np.isfinite(scores).sum(axis=1)
    if not np.array_equal(rows < 0, np.arange(rows.shape[1]) >= left[:, None]):
        raise WrongAnswer(f"{path}: has more or fewer items than a user has left; export the bundle again")
    found = np.where(rows < 0, -np.inf, bundle.answer_scores[users])
    expected = np.take_along_axis(scores, np.maximum(rows, 0), axis=1)
    best = np.sort(scores, axis=1)[:, ::-1][:, : rows.shape[1]]
    with np.errstate(invalid="ignore"):
        differences = [np.abs(found - other)[rows >= 0] for other in (expected, best)]
    largest = float(np.concatenate(differences).max(initial=0.0))
    if not largest <= TOLERANCE * max(1.0, float(np.abs(best[np.isfinite(best)]).max(initial=0.0))):
        raise WrongAnswer(f"{path}: differs from exact search by {largest:.3g}; export the bundle again")
    return largest


def _check_recommend(bundle: Bundle, users: npt.NDArray[np.int64]) -> float:
    path = bundle.recommend_onnx_path
    _check_graph(path)
    k = min(CHECKED_K, len(bundle.item_ids))
    inputs = {"user_index": users, "k": np.array([k], dtype=np.int64)}
    found, rows = open_session(path).run(["scores", "item_index"], inputs)
    return _compare(path, found, rows, _scores(bundle, users), complete=True)


def _compare(
    path: Path,
    found: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    scores: npt.NDArray[np.float32],
    *,
    complete: bool,
) -> float:
    """Largest difference of the found scores from those of the same rows; with `complete`, also from the top."""
    there = rows >= 0
    expected = np.take_along_axis(scores, np.maximum(rows, 0), axis=1)
    differences = [np.abs(found - expected)[there]]
    if complete:
        differences.append(np.abs(found - np.sort(scores, axis=1)[:, ::-1][:, : found.shape[1]]).ravel())
    largest = float(np.concatenate(differences).max(initial=0.0))
    if not largest <= TOLERANCE * max(1.0, float(np.abs(scores).max())):
        raise WrongAnswer(f"{path}: scores differ from the embeddings' by {largest:.3g}; export the bundle again")
    return largest


def _check_fold_in(bundle: Bundle, users: npt.NDArray[np.int64]) -> float:
    """Largest difference from the table's means; a graph without a table need only give finite vectors."""
    path, table = bundle.fold_in_onnx_path, bundle.fold_in_embeddings
    _check_graph(path)
    session = open_session(path)
    largest = 0.0
    for user in users:
        history = bundle.seen(int(user)).astype(np.int64)
        if not len(history):
            continue
        (vector,) = session.run(["user_embedding"], {"item_index": history})
        expected = vector if table is None else table[history].astype(np.float64).mean(axis=0)
        difference = np.abs(vector - expected).max() if vector.shape == expected.shape else np.inf
        largest = max(largest, float(difference / max(1.0, np.abs(expected).max())))
    if not largest <= TOLERANCE:
        raise WrongAnswer(f"{path}: user vectors differ from the means of its table by {largest:.3g}; export again")
    return largest


def _check_graph(path: Path) -> None:
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WrongAnswer(f"{path}: not a valid ONNX graph ({reason}); export the bundle again") from error
