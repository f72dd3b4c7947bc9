"""A blend of scorers, each standardised per user, with weights that are chosen on validation by scoring lists alone.

    s_u = Σ_k w_k (s_ku − mean s_ku) / std s_ku,    over the whole catalogue of user u

Models that err differently are better together, and what a closed-form scorer knows of the graph a factorisation often
does not. Whatever the units of a model's scores, a weight means the same.

The weights are searched one after the other over a few values, round after round, until no change brings more
(coordinate ascent). What is scored is a pool of candidates: the first `POOL` unseen items of each scorer, since what is
first in the blend is among the first of one of them. So the whole catalogue is scored once for the users of the
search, at most `SEARCH_USERS` of them, and a trial of weights costs milliseconds.

Cost of the search with M scorers: what their rows cost for those users, and 4 M² `POOL` bytes a user.

References:
    Metzler and Croft, "Linear feature-based models for information retrieval", Information Retrieval 10, 2007, section
        3.1.3: coordinate ascent on the metric itself.
    Caruana et al., "Ensemble selection from libraries of models", ICML 2004: few models of a library, chosen on
        validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from tqdm import tqdm

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.metrics import Hits, Rows, find_hits, ndcg_at_k
from distill.evaluation.ranking import CHUNK_BYTES, ScoreRows

WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
POOL = 100
SEARCH_USERS = 3000
SEARCH_CUTOFF = 20
SEARCH_METRIC = f"NDCG@{SEARCH_CUTOFF}"
SMALLEST_GAIN = 0.005
"""What a further scorer must bring, relative: less is noise, and costs as much time."""
MAX_ROUNDS = 5


@dataclass(frozen=True)
class Blend:
    """Scorers and their weights.

    Attributes:
        members: Name → scorer.
        weights: Name → w.
    """

    members: Mapping[str, ScoreRows]
    weights: Mapping[str, float]

    def score_rows(self, users: Rows) -> torch.Tensor:
        """Score the catalogue for training users (B,): shape (B, |I|)."""
        total: torch.Tensor | None = None
        for name, weight in self.weights.items():
            scores = standardise(self.members[name], users).mul_(weight)
            total = scores if total is None else total.add_(scores)
        if total is None:
            raise SettingError("blend: it has no scorer; give at least one")
        return total


@dataclass(frozen=True)
class Choice:
    """What a search found.

    Attributes:
        weights: Name → w, without those of weight 0.
        value: Validation `SEARCH_METRIC` over the users of the search.
        alone: The same of each scorer by itself.
    """

    weights: Mapping[str, float]
    value: float
    alone: Mapping[str, float]


def standardise(score_rows: ScoreRows, users: Rows) -> torch.Tensor:
    """Return a scorer's rows with mean 0 and standard deviation 1: shape (B, |I|); rows of equal scores are 0."""
    scores = torch.as_tensor(score_rows(users)).to(torch.float32, copy=True)
    scores -= scores.mean(dim=1, keepdim=True)
    return scores.div_(scores.square().mean(dim=1, keepdim=True).sqrt_().clamp_min_(torch.finfo(torch.float32).tiny))


def choose_weights(members: Mapping[str, ScoreRows], data: Interactions, first: str | None = None) -> Choice:
    """Search the weights of a blend.

    Args:
        members: Name → scorer.
        data: Train to mask, validation to compare.
        first: Whose weight stays 1, whatever the others bring; the best one alone when None.

    Raises:
        SettingError: There are no validation interactions, or no scorer.
    """
    pool = _Pool(members, data)
    names = list(members)
    alone = {name: pool.measure({name: 1.0}) for name in names}
    fixed = first or max(names, key=alone.__getitem__)
    weights, value = {fixed: 1.0}, alone[fixed]
    for _ in range(MAX_ROUNDS):
        before = value
        for name in names:
            if name != fixed:
                weights, value = _best_weight(pool, weights, name)
        if value <= before:
            break
    return Choice(weights, value, alone)


def _best_weight(pool: _Pool, weights: Mapping[str, float], name: str) -> tuple[dict[str, float], float]:
    """Set one weight to its best, or leave the scorer out where that is about as good."""
    without = {key: weight for key, weight in weights.items() if key != name}
    left_out = pool.measure(without)
    value, weight = max((pool.measure({**without, name: weight}), -weight) for weight in WEIGHTS[1:])
    return (without, left_out) if value < left_out * (1 + SMALLEST_GAIN) else ({**without, name: -weight}, value)


class _Pool:
    """Candidates of some validation users, and what each scorer says of them."""

    def __init__(self, members: Mapping[str, ScoreRows], data: Interactions) -> None:
        if not members:
            raise SettingError("blend: it has no scorer; give at least one")
        with_relevant = np.flatnonzero(np.diff(data.validation.indptr))
        if not len(with_relevant):
            raise SettingError(f"data: '{data.name}' has no validation interactions to choose weights on")
        rng = np.random.default_rng(0)
        count = min(SEARCH_USERS, len(with_relevant))
        self._users = np.sort(rng.choice(with_relevant, count, replace=False)).astype(np.int64)
        self._num_relevant = np.diff(data.validation.indptr)[self._users]
        chunk = max(1, CHUNK_BYTES // (4 * len(members) * data.num_items))
        starts = range(0, count, chunk)
        bar = tqdm(starts, desc="choosing co-teachers", unit="chunk", disable=None, leave=False)
        parts = [_candidates(members, data, self._users[start : start + chunk]) for start in bar]
        self._relevant = np.concatenate([relevant for relevant, _ in parts])
        scores = torch.cat([scores for _, scores in parts], dim=1)
        self._scores = dict(zip(members, scores, strict=True))

    def measure(self, weights: Mapping[str, float]) -> float:
        """Mean `SEARCH_METRIC` of a blend."""
        total = torch.stack([self._scores[name] * weight for name, weight in weights.items()]).sum(dim=0)
        best = total.topk(min(SEARCH_CUTOFF, total.shape[1]), dim=1).indices.numpy()
        hits = np.take_along_axis(self._relevant, best, axis=1)
        return float(ndcg_at_k(hits, self._num_relevant, SEARCH_CUTOFF).mean())


def _candidates(members: Mapping[str, ScoreRows], data: Interactions, users: Rows) -> tuple[Hits, torch.Tensor]:
    """Take the union of all scorers' first unseen items.

    Returns:
        Which are relevant, (B, M · POOL), and each scorer's scores of them, (M, B, M · POOL). Where scorers agree, the
        rest of a row is filled with −∞.
    """
    rows = torch.stack([standardise(score_rows, users) for score_rows in members.values()])
    seen = data.train[users].tocoo()
    unseen = rows.clone()
    unseen[:, torch.from_numpy(seen.row).long(), torch.from_numpy(seen.col).long()] = -torch.inf
    found = unseen.topk(min(POOL, data.num_items), dim=2).indices
    wanted = torch.zeros(rows.shape[1:], dtype=torch.bool)
    for lists in found:
        wanted.scatter_(1, lists, True)
    wanted[torch.from_numpy(seen.row).long(), torch.from_numpy(seen.col).long()] = False
    owners, items = wanted.nonzero(as_tuple=True)
    counts = wanted.sum(dim=1)
    places = torch.arange(len(owners)) - (counts.cumsum(0) - counts)[owners]
    scores = torch.full((len(rows), len(users), len(rows) * found.shape[2]), -torch.inf)
    scores[:, owners, places] = rows[:, owners, items]
    pool = torch.zeros(scores.shape[1:], dtype=torch.int64)
    pool[owners, places] = items
    relevant = find_hits(pool.numpy(), data.validation, users) & (scores[0] > -torch.inf).numpy()
    return relevant, scores
