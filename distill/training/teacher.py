"""A run as a teacher: its features, in the scale of the student's scores, and what it kept on its way."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch

from distill.backbones import BACKBONES, Backbone
from distill.data.interactions import Interactions
from distill.evaluation.ranking import TILED_FROM, top_items
from distill.finite import blocks_of_rows
from distill.methods import Teacher
from distill.methods.top_lists import HEAD, sharpness
from distill.run import Run, open_trajectory

MEASURED_USERS = 1000


def open_teacher(run: Run, data: Interactions, student: Backbone) -> Teacher:
    """Make a teacher of a run.

    The scores of unlike backbones have unlike scales: a cosine ends at 1, where BPRMF's go to 10. The features are
    scaled so that τ means as sharp a softmax of the teacher's scores as of the student's; the order stays, and so does
    everything between equal backbones.

    Args:
        run: Of any backbone and dimension, or imported.
        data: What the student learns.
        student: Whose `score_temperature` is the unit.

    Raises:
        RunError: The run belongs to other data.
    """
    run.require_same_data(data)
    scale = (student.score_temperature / score_temperature(run)) ** 0.5
    past = [torch.from_numpy(np.concatenate(pair)) for pair in open_trajectory(run.path)]
    return Teacher(_stack(run).mul_(scale), data.num_users, tuple(past))


def _stack(run: Run) -> torch.Tensor:
    """Users' and items' embeddings in one table of float32, the only copy that is made."""
    table = torch.empty(len(run.user_embeddings) + len(run.item_embeddings), run.dim)
    row = 0
    for side in (run.user_embeddings, run.item_embeddings):
        for _, block in blocks_of_rows(side):
            table[row : row + len(block)] = torch.from_numpy(block)
            row += len(block)
    return table


def score_temperature(run: Run) -> float:
    """Say at which τ a softmax over a run's scores is neither flat nor a single item.

    A backbone of ours says so itself. Of embeddings from elsewhere it is measured, as of a blend of co-teachers: by
    `sharpness` of the scores of at most 1,000 users, evenly apart.

    Cost: 2,000 |I| d operations at most; in memory, the scores of fewer than `TILED_FROM` items, or a tile.
    """
    backbone = BACKBONES.get(run.config["backbone"])
    if backbone is not None and run.config["method"] != "imported":
        return backbone.score_temperature
    users, num_items = run.user_embeddings[:: -(-len(run.user_embeddings) // MEASURED_USERS)], len(run.item_embeddings)
    if num_items >= TILED_FROM:
        nothing = sp.csr_matrix((len(users), num_items), dtype=np.float32)
        rows = np.arange(len(users), dtype=np.int64)
        title = "measuring the teacher"
        return 1 / sharpness(top_items(users, run.item_embeddings, nothing, rows, HEAD, progress=True, title=title)[1])
    scores = (
        torch.from_numpy(np.asarray(users, np.float32))
        @ torch.from_numpy(np.asarray(run.item_embeddings, np.float32)).T
    )
    return 1 / sharpness(scores.topk(min(HEAD, num_items), dim=1).values.numpy())
