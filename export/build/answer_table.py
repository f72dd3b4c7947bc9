"""The answer table: the best items of every user, ready, what the user has left out.

It takes 8 bytes an entry and is only right for plain questions, so it is off unless asked for. What it wins is the
search and the mask of a question; what it costs is that the bundle grows with the users, where a model does not.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from distill.evaluation.ranking import rank_scores
from export.bundle import BundleContents

CHUNK_USERS = 4096


def add_answers(contents: BundleContents, had: sp.csr_matrix, length: int) -> BundleContents:
    """The same contents with an answer table.

    Args:
        contents: With the embeddings as they are stored.
        had: What users already have, shape (U, I).
        length: Items a user, at most; no more than there are.
    """
    rows, scores = rank_answers(contents.user_embeddings, contents.item_embeddings, had, min(length, had.shape[1]))
    return replace(contents, answer_rows=rows, answer_scores=scores)


def rank_answers(
    users: npt.NDArray[Any], items: npt.NDArray[Any], had: sp.csr_matrix, length: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """The exact best items that each user does not have.

    Args:
        users: Shape (U, d).
        items: Shape (I, d).
        had: Shape (U, I).
        length: N, at most I.

    Returns:
        Item rows and scores, shape (U, N), best first, equal scores by rising row; -1 and 0 where no item is left.
    """
    vectors, columns = (np.asarray(side, dtype=np.float32) for side in (users, items))
    everybody = np.arange(len(vectors))
    ranked = rank_scores(lambda rows: vectors[rows] @ columns.T, had, everybody, length, ties="row", progress=True)
    left = had.shape[1] - np.diff(had.indptr)
    scores = np.empty(ranked.shape, dtype=np.float32)
    for start in range(0, len(ranked), CHUNK_USERS):
        part = slice(start, start + CHUNK_USERS)
        np.einsum("bd,bnd->bn", vectors[part], columns[ranked[part]], out=scores[part])
    missing = np.arange(length) >= left[:, None]
    scores[missing] = -np.inf
    # The product that ranked rounds otherwise, so neighbours may have to change places.
    order = np.lexsort((ranked, -scores), axis=1)
    rows = np.take_along_axis(ranked, order, axis=1).astype(np.int32)
    scores = np.take_along_axis(scores, order, axis=1)
    rows[missing], scores[missing] = -1, 0
    return rows, scores
