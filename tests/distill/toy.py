"""Small interactions with known structure, and what the tests of the core build from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch

from distill.backbones import Backbone
from distill.backbones.sampling import Batch
from distill.data.interactions import Interactions, build_user_items
from distill.graph.adjacency import build_graph
from distill.methods import Step

Pairs = Sequence[tuple[int, int]]


def build_interactions(shape: tuple[int, int], train: Pairs, validation: Pairs = (), test: Pairs = ()) -> Interactions:
    matrices = []
    for pairs in (train, validation, test):
        columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
        matrices.append(build_user_items(columns[:, 0], columns[:, 1], shape))
    user_ids = np.array([f"u{row}" for row in range(shape[0])])
    item_ids = np.array([f"i{row}" for row in range(shape[1])])
    return Interactions("toy", user_ids, item_ids, *matrices)


def build_checkerboard(size: int = 24) -> Interactions:
    taken = [(user, item) for user in range(size) for item in range(user % 2, size, 2)]
    test = [(user, user) for user in range(size)]
    validation = [(user, (user + 2) % size) for user in range(size)]
    held_out = {*test, *validation}
    return build_interactions((size, size), [pair for pair in taken if pair not in held_out], validation, test)


def build_random(rng: np.random.Generator, num_users: int = 30, num_items: int = 25, taken: int = 8) -> Interactions:
    """About `taken` items a user, split 6:1:1; every third user has no test item, the last item no user."""
    train: list[tuple[int, int]] = []
    validation: list[tuple[int, int]] = []
    test: list[tuple[int, int]] = []
    for user in range(num_users):
        items = rng.permutation(num_items - 1)[:taken].tolist()
        train += [(user, item) for item in items[: taken - 2]]
        validation.append((user, items[-2]))
        if user % 3:
            test.append((user, items[-1]))
    return build_interactions((num_users, num_items), train, validation, test)


def build_random_graph(rng: np.random.Generator, *, bipartite: bool = True) -> sp.csr_matrix:
    """Â of 55 entities, the last of which has no edge."""
    return build_graph(build_random(rng), "bipartite" if bipartite else "cooccurrence", 3)


def random_embeddings(data: Interactions, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    users = torch.from_numpy(rng.normal(size=(data.num_users, 6)).astype(np.float32))
    items = torch.from_numpy(rng.normal(size=(data.num_items, 6)).astype(np.float32))
    return users, items


def whole_batch(data: Interactions) -> Batch:
    """Every user, and every item both as positive and as negative, so that each item weighs ½ + ½."""
    items = torch.arange(data.num_items)
    return Batch(torch.arange(data.num_users), items, items)


def build_step(batch: Batch, student: Backbone, seed: int = 0) -> Step:
    return Step(batch, student.features, student.embeddings(), torch.Generator().manual_seed(seed))
