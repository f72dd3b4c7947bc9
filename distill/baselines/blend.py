"""A blend of scorers, each standardised per user, that is chosen on validation by scoring lists alone.

    s_u = Σ_k w_k (s_ku − mean s_ku) / std s_ku,    over the whole catalogue of user u

Models that err differently are better together, and what a closed-form scorer knows of the graph a factorisation often
does not. Whatever the units of a model's scores, a weight means the same.

The search goes forward: of each family (one scorer under several settings) at most one member is taken, and of all
members and weights the one that brings most, as long as it brings `SMALLEST_GAIN` and users do not differ about it (a
paired t). What is scored is a pool of candidates: the first `POOL` unseen items of each scorer, since what is first in
the blend is among the first of one of them. So the whole catalogue is scored once for the users of the search, at most
`SEARCH_USERS` of them, and a trial of weights costs milliseconds.

Cost of the search with M scorers: what their rows cost for those users, and 4 M² `POOL` bytes a user.

References:
    Caruana et al., "Ensemble selection from libraries of models", ICML 2004: forward selection from a library on
        validation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from tqdm import tqdm

from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.metrics import Hits, Rows, Values, find_hits, recall_at_k
from distill.evaluation.ranking import CHUNK_BYTES, ScoreRows

WEIGHTS = (0.25, 0.5, 1.0)
POOL = 50
SEARCH_USERS = 2000
SEARCH_CUTOFF = 20
SEARCH_METRIC = f"Recall@{SEARCH_CUTOFF}"
SMALLEST_GAIN = 0.005
"""What a further scorer must bring, relative: each costs time."""
P_VALUE = 0.05

LEAST_CHUNK = 4
"""Users that are scored at once, whatever the catalogue: for one alone all vectors of items would be read."""

Families = Mapping[str, Mapping[str, ScoreRows]]
"""Family → member → scorer."""


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
        weights: Member → w, in the order in which they were taken.
        value: Validation `SEARCH_METRIC` over the users of the search.
        alone: The same of every member by itself.
        num_users: Users of the search.
    """

    weights: Mapping[str, float]
    value: float
    alone: Mapping[str, float]
    num_users: int


def standardise(score_rows: ScoreRows, users: Rows) -> torch.Tensor:
    """Return a scorer's rows with mean 0 and standard deviation 1: shape (B, |I|); rows of equal scores are 0."""
    scores = torch.as_tensor(score_rows(users)).to(torch.float32, copy=True)
    scores -= scores.mean(dim=1, keepdim=True)
    return scores.div_(scores.square().mean(dim=1, keepdim=True).sqrt_().clamp_min_(torch.finfo(torch.float32).tiny))


def choose_blend(
    families: Families, data: Interactions, *, first: str | None = None, given: Mapping[str, float] | None = None
) -> Choice:
    """Search a blend.

    Args:
        families: What may be in it; members of different families have different names.
        data: Train to mask, validation to compare.
        first: The member that is in it with weight 1, whatever the others bring; the best one alone when None.
        given: Families that are in it with these weights: only their members are chosen.

    Raises:
        SettingError: There are no validation interactions, or no scorer.
    """
    pool = _Pool({name: rows for members in families.values() for name, rows in members.items()}, data)
    family_of = {name: family for family, members in families.items() for name in members}
    alone = {name: float(pool.measure({name: 1.0}).mean()) for name in family_of}
    if given is not None:
        weights = {} if first is None else {first: 1.0}
        for family, weight in given.items():
            weights, _ = _best_addition(pool, weights, list(families[family]), (weight,))
    else:
        weights = {first or max(alone, key=alone.__getitem__): 1.0}
        while True:
            taken = {family_of[name] for name in weights}
            others = [name for name in family_of if family_of[name] not in taken]
            tried, is_better = _best_addition(pool, weights, others, WEIGHTS) if others else (weights, False)
            if not is_better:
                break
            weights = tried
    return Choice(weights, float(pool.measure(weights).mean()), alone, pool.num_users)


def _best_addition(
    pool: _Pool, weights: Mapping[str, float], names: Sequence[str], steps: Sequence[float]
) -> tuple[dict[str, float], bool]:
    """Add the member and weight that bring most, and say whether they bring anything."""
    trials = [{**weights, name: step} for name in names for step in steps]
    measured = [pool.measure(trial) for trial in trials]
    best = max(range(len(trials)), key=lambda trial: measured[trial].mean())
    if not weights:
        return trials[best], True
    before, after = pool.measure(weights), measured[best]
    is_real = after.mean() >= (1 + SMALLEST_GAIN) * before.mean()
    return trials[best], bool(is_real and stats.ttest_rel(after, before).pvalue < P_VALUE)


class _Pool:
    """Candidates of some validation users, and what each scorer says of them."""

    def __init__(self, members: Mapping[str, ScoreRows], data: Interactions) -> None:
        if not members:
            raise SettingError("blend: it has no scorer; give at least one")
        with_relevant = np.flatnonzero(np.diff(data.validation.indptr))
        if not len(with_relevant):
            raise SettingError(f"data: '{data.name}' has no validation interactions to choose weights on")
        rng = np.random.default_rng(0)
        self.num_users = min(SEARCH_USERS, len(with_relevant))
        users = np.sort(rng.choice(with_relevant, self.num_users, replace=False)).astype(np.int64)
        self._num_relevant = np.diff(data.validation.indptr)[users]
        chunk = max(LEAST_CHUNK, CHUNK_BYTES // (4 * len(members) * data.num_items))
        starts = range(0, len(users), chunk)
        bar = tqdm(starts, desc="choosing co-teachers", unit="chunk", disable=None, leave=False)
        width = len(members) * min(POOL, data.num_items)
        # Filled in place: small arrays kept from every chunk would lie between the large ones that come and go, and the
        # heap would grow by a chunk each time (11 GB over a million items).
        self._relevant = np.zeros((len(users), width), dtype=bool)
        scores = torch.full((len(members), len(users), width), -torch.inf)
        for start in bar:
            part = slice(start, start + chunk)
            self._relevant[part] = _find_candidates(members, data, users[part], scores[:, part])
        self._scores = dict(zip(members, scores, strict=True))

    def measure(self, weights: Mapping[str, float]) -> Values:
        """`SEARCH_METRIC` of a blend for each user."""
        total = torch.stack([self._scores[name] * weight for name, weight in weights.items()]).sum(dim=0)
        best = total.topk(min(SEARCH_CUTOFF, total.shape[1]), dim=1, sorted=False).indices.numpy()
        return recall_at_k(np.take_along_axis(self._relevant, best, axis=1), self._num_relevant, SEARCH_CUTOFF)


def _find_candidates(members: Mapping[str, ScoreRows], data: Interactions, users: Rows, scores: torch.Tensor) -> Hits:
    """Take the union of all scorers' first unseen items.

    Args:
        scores: Filled with −∞, shape (M, B, M · POOL); it gets each scorer's scores of them. Where scorers agree, the
            rest of a row is left.

    Returns:
        Which are relevant, (B, M · POOL).
    """
    rows = torch.stack([standardise(score_rows, users) for score_rows in members.values()])
    taken = data.train[users].tocoo()
    seen = torch.from_numpy(taken.row).long(), torch.from_numpy(taken.col).long()
    unseen = rows.clone()
    unseen[:, *seen] = -torch.inf
    found = unseen.topk(min(POOL, data.num_items), dim=2).indices
    wanted = torch.zeros(rows.shape[1:], dtype=torch.bool)
    for lists in found:
        wanted.scatter_(1, lists, True)
    wanted[seen] = False
    owners, items = wanted.nonzero(as_tuple=True)
    counts = wanted.sum(dim=1)
    places = torch.arange(len(owners)) - (counts.cumsum(0) - counts)[owners]
    scores[:, owners, places] = rows[:, owners, items]
    pool = torch.zeros(scores.shape[1:], dtype=torch.int64)
    pool[owners, places] = items
    hits: Hits = find_hits(pool.numpy(), data.validation, users) & (scores[0] > -torch.inf).numpy()
    return hits
