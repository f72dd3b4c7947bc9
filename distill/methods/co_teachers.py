"""Co-teachers: closed-form scorers of the interactions that are blended with the teacher for list-wise methods.

A trained teacher is one view of the interactions. A low-pass graph filter on them, or EASE, is another, costs seconds
and errs elsewhere, so the blend's lists are better than each one's, and a student follows lists: it can be better than
its teacher. `distill.baselines.blend` has the blend and the search of its weights on validation, without any training;
here its members are fitted and its lists made, by one pass over chunks of score rows. Without a teacher the scorers
teach alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
import torch

from distill.baselines.blend import SEARCH_METRIC, Blend, choose_weights
from distill.baselines.graph_filters import Band, ideal_filter
from distill.baselines.tuning import BASELINES, tune
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.evaluation.protocol import evaluate_lists, report_splits
from distill.evaluation.ranking import ScoreRows
from distill.methods.base import Preferences, Teacher
from distill.methods.top_lists import ListStore, TopLists, list_top

AUTO, NONE = "auto", "none"
AUTOMATIC = ("turbocf", "gfcf", "ease", "itemknn")
"""What "auto" chooses from; EASE is left out where it does not fit."""
TEACHER = "teacher"
IDEAL: Mapping[str, Band] = {"ideal-low": "low", "ideal-high": "high", "ideal-all": "all"}
"""Name → band of `ideal_filter`, for ablations."""
IDEAL_RANK = 128


@dataclass(frozen=True)
class BlendedTeacher(Teacher):
    """A teacher whose lists are a blend's; its features are its own, of width 0 where interactions alone teach.

    Attributes:
        lists: Makes or reads the lists of what is not hidden, CSR of shape (|U|, |I|).
        report: What the blend is made of, and its quality.
    """

    by_lists: ClassVar[bool] = True
    lists: Callable[[sp.csr_matrix], TopLists] = field(kw_only=True)
    report: Mapping[str, Any] = field(kw_only=True)

    def preferences(self, hidden: sp.csr_matrix) -> Preferences:
        """Return the blend's lists."""
        return self.lists(hidden)


def parse_co_teachers(text: str) -> dict[str, float | None]:
    """Read who teaches beside the teacher.

    Args:
        text: "auto", "none", names such as "turbocf,ease", whose weights are chosen on validation, or names with
            weights, "turbocf=0.5,ease=0.25".

    Returns:
        Name → weight, None where it is to be chosen; empty for "none".

    Raises:
        SettingError: A name is unknown or there twice, a weight is not above 0, or only some have one.
    """
    if text in (AUTO, NONE):
        return dict.fromkeys(AUTOMATIC if text == AUTO else ())
    found: dict[str, float | None] = {}
    for part in text.split(","):
        name, separator, number = part.partition("=")
        if name not in (*BASELINES, *IDEAL) or name in found:
            known = ", ".join((*BASELINES, *IDEAL))
            raise SettingError(f"co_teachers: '{name}' is not one of {known}, or there twice; or give {AUTO} or {NONE}")
        found[name] = _parse_weight(part, number) if separator else None
    if len({weight is None for weight in found.values()}) > 1:
        raise SettingError(f"co_teachers: '{text}' gives some a weight; give all of them one, or none")
    return found


def _parse_weight(part: str, number: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = np.nan
    if not 0 < weight < np.inf:
        raise SettingError(f"co_teachers: the weight in '{part}' is not a number above 0")
    return weight


def blend_teachers(
    text: str, data: Interactions, features: torch.Tensor | None, out: Path, teacher_fingerprint: str | None
) -> BlendedTeacher:
    """Make the teacher of a run that has co-teachers.

    Args:
        text: As `parse_co_teachers` reads it, not "none".
        data: Train to fit, validation to choose and to report, test to report.
        features: The teacher's, users first, shape (N, d_t); None where interactions alone teach.
        out: The run directory: lists are kept there, and found again when the run is resumed.
        teacher_fingerprint: Of the teacher's run.

    Raises:
        SettingError: As `parse_co_teachers`, or a scorer that was asked for needs more memory than it may have.
    """
    made_of = json.dumps([data.fingerprint, teacher_fingerprint, text])
    store = ListStore(out, hashlib.sha256(made_of.encode()).hexdigest())
    lists = _Lists(text, data, features, store)
    unseen = lists.of(data.train)
    table = torch.empty(data.num_users + data.num_items, 0) if features is None else features
    return BlendedTeacher(table, data.num_users, lists=lists.of, report=lists.description | _quality(unseen, data))


def describe_blend(report: Mapping[str, Any]) -> str:
    """Put a blend into words: "teacher + 0.5 turbocf (alpha 0.5, degree 1)"."""
    parts = []
    for name, weight in report["weights"].items():
        settings = ", ".join(f"{key} {value:g}" for key, value in report["settings"].get(name, {}).items())
        parts.append(("" if weight == 1 else f"{weight:g} ") + name + (f" ({settings})" if settings else ""))
    return " + ".join(parts)


def _quality(unseen: TopLists, data: Interactions) -> dict[str, Any]:
    """Reports of the blend's own lists, as in a run's `metrics.json`."""
    return report_splits(
        lambda protocol: evaluate_lists(lambda _, users, k: unseen.items[users, :k].astype(np.int64), data, protocol),
        data,
    )


class _Lists:
    """Fits scorers, chooses their weights and makes lists, each when it is needed first."""

    def __init__(self, text: str, data: Interactions, features: torch.Tensor | None, store: ListStore) -> None:
        self._text = text
        self._data = data
        self._features = features
        self._store = store
        self._blend: Blend | None = None
        self.description: dict[str, Any] = {}

    def of(self, hidden: sp.csr_matrix) -> TopLists:
        """Read or make the lists of what is not hidden: the training items, or nothing."""
        name = "unseen" if hidden.nnz else "all"
        found = self._store.read(name, self._data.num_items)
        if found is not None:
            lists, self.description = found
            return lists
        if self._blend is None:
            self._blend, self.description = self._choose()
        lists = list_top(self._blend.score_rows, hidden)
        self._store.write(name, lists, self.description)
        return lists

    def _choose(self) -> tuple[Blend, dict[str, Any]]:
        members: dict[str, ScoreRows] = {}
        if self._features is not None:
            members[TEACHER] = _inner_products(self._features, self._data.num_users)
        wanted = parse_co_teachers(self._text)
        fitted, settings, refused = _fit(wanted, self._data, may_refuse=self._text == AUTO)
        members |= fitted
        if not members:
            raise SettingError(f"co_teachers: none of {', '.join(wanted)} fits ({refused}); give others")
        description: dict[str, Any] = {"settings": settings, "left_out": refused}
        given = {name: weight for name, weight in wanted.items() if weight is not None}
        if given:
            weights: Mapping[str, float] = ({TEACHER: 1.0} if TEACHER in members else {}) | given
        else:
            choice = choose_weights(members, self._data, TEACHER if TEACHER in members else None)
            weights = choice.weights
            description["search"] = {"metric": f"validation {SEARCH_METRIC}", "best": choice.value, **choice.alone}
        return Blend(members, weights), {"weights": dict(weights), **description}


def _inner_products(features: torch.Tensor, num_users: int) -> ScoreRows:
    users, columns = features[:num_users], features[num_users:].T.contiguous()
    return lambda rows: users[torch.from_numpy(rows)] @ columns


def _fit(
    names: Mapping[str, float | None], data: Interactions, *, may_refuse: bool
) -> tuple[dict[str, ScoreRows], dict[str, dict[str, float]], dict[str, str]]:
    """Scorers and their settings by name, tuned alone on validation, and why some are left out."""
    fitted: dict[str, ScoreRows] = {}
    settings: dict[str, dict[str, float]] = {}
    refused: dict[str, str] = {}
    for name in names:
        if name in IDEAL:
            fitted[name] = ideal_filter(data.train, IDEAL_RANK, IDEAL[name]).score_rows
            settings[name] = {"rank": IDEAL_RANK}
            continue
        try:
            tuned = tune(name, data, progress=True)
        except SettingError as error:
            if not may_refuse:
                raise
            refused[name] = str(error)
            continue
        fitted[name], settings[name] = tuned.baseline.score_rows, dict(tuned.settings)
    return fitted, settings, refused
