"""Co-teachers: scorers of the interactions, fitted without gradients, blended with the teacher for list-wise methods.

A trained teacher is one view of the interactions. A low-pass graph filter on them, EASE or iALS is another, costs
seconds and errs elsewhere, so the blend's lists are better than each one's, and a student follows lists: it can be
better than its teacher. `distill.baselines.blend` has the blend and the search of its weights on validation, without
any training; here its members are fitted and its lists made, by one pass over chunks of score rows. Without a teacher
the scorers teach alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from tqdm import tqdm

from distill.baselines.base import Baseline
from distill.baselines.blend import SEARCH_METRIC, Blend, Families, choose_blend, standardise
from distill.baselines.ease import EASE_MAX_BYTES
from distill.baselines.graph_filters import Band, ideal_filter
from distill.baselines.neighbors import popularity
from distill.baselines.tuning import BASELINES, SHARED
from distill.data.interactions import Interactions
from distill.errors import RunError, SettingError
from distill.evaluation.metrics import Rows
from distill.evaluation.protocol import evaluate_lists, report_splits
from distill.evaluation.ranking import ScoreRows, drawn_order
from distill.methods.base import Preferences, Teacher
from distill.methods.candidates import is_whole
from distill.methods.responses import ResponseSettings
from distill.methods.stored_lists import STORED, Blended, Factors, open_lists, store_lists
from distill.methods.top_lists import HEAD, HEAD_USERS, LISTED, PERPLEXITY, ListStore, TopLists, list_top, sharpness
from distill.storage import alone_in

AUTO, NONE = "auto", "none"
TEACHER = "teacher"
LIBRARY: Mapping[str, tuple[dict[str, Any], ...]] = {
    "turbocf": tuple({"alpha": alpha, "degree": degree} for alpha, degree in ((0.4, 1), (0.5, 1), (0.6, 1), (0.5, 2))),
    "gfcf": tuple({"rank": rank, "ideal_weight": weight} for rank, weight in ((64, 0.3), (256, 0.3), (256, 1.0))),
    "ease": tuple({"regularization": value} for value in (30.0, 500.0)),
    "itemknn": ({"num_neighbors": 20, "shrink": 0.0}, {"num_neighbors": 100, "shrink": 0.0}),
    "ials": tuple({"unobserved_ratio": 4.0, "regularization": 0.01, "dim": dim} for dim in (64, 256)),
}
"""Name → settings among which the search chooses: a few of those that `evaluate --baselines` tries."""
IDEAL: Mapping[str, Band] = {"ideal-low": "low", "ideal-high": "high", "ideal-all": "all"}
"""Name → band of `ideal_filter`, for ablations: never chosen by itself."""
IDEAL_RANK = 128
FACTORS = ("ials", "ideal-low")
"""Co-teachers of a catalogue that is not scored whole: iALS with the fewest numbers, and GF-CF's ideal part."""
FACTOR_RANK = 64
AUTO_EASE_MAX_BYTES = 2**30
"""Beyond, where the smaller of users and items is about 9,400, EASE takes minutes: it must be asked for by name."""


@dataclass(frozen=True)
class BlendedTeacher(Teacher):
    """A teacher whose lists are a blend's; its features are its own, of width 0 where interactions alone teach.

    Attributes:
        lists: Makes or reads the lists of what is not hidden, CSR of shape (|U|, |I|).
        temperature: τ of the student's scores, whose unit those of the lists are brought to.
        report: What the blend is made of, and its quality.
    """

    by_lists: ClassVar[bool] = True
    lists: Callable[[sp.csr_matrix], TopLists] = field(kw_only=True)
    temperature: float = field(kw_only=True)
    report: Mapping[str, Any] = field(kw_only=True)

    def preferences(self, hidden: sp.csr_matrix) -> Preferences:
        """Return the blend's lists."""
        return self.lists(hidden).scaled(self.temperature)


@dataclass(frozen=True)
class ListedTeacher(Teacher):
    """A teacher alone whose lists an index made, in the unit of its own scores.

    Attributes:
        lists: Makes or reads the lists of what is not hidden, CSR of shape (|U|, |I|).
        report: What there is to know of the index.
    """

    by_lists: ClassVar[bool] = True
    lists: Callable[[sp.csr_matrix], TopLists] = field(kw_only=True)
    report: Mapping[str, Any] = field(kw_only=True)

    def preferences(self, hidden: sp.csr_matrix) -> Preferences:
        """Return the lists."""
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
        return dict.fromkeys(LIBRARY if text == AUTO else ())
    found: dict[str, float | None] = {}
    for part in map(str.strip, text.split(",")):
        name, separator, number = part.partition("=")
        if name not in (*LIBRARY, *IDEAL) or name in found:
            known = ", ".join((*LIBRARY, *IDEAL))
            raise SettingError(f"co_teachers: '{name}' is not one of {known}, or there twice; or give {AUTO} or {NONE}")
        found[name] = _parse_weight(part, number) if separator else None
    if len({weight is None for weight in found.values()}) > 1:
        raise SettingError(f"co_teachers: '{text}' gives some a weight; give all of them one, or none")
    return found


def require_listed(settings: Iterable[Any], *, whole: bool = True) -> None:
    """Check that lists are all that the parts of a method want of their teacher; ask before they are made.

    Args:
        settings: Of the parts.
        whole: Whether the catalogue is ranked whole; else an index makes the lists, of `STORED` items.

    Raises:
        SettingError: One smooths the teacher's embeddings, or learns longer lists than are made.
    """
    length = LISTED if whole else STORED
    who = "co-teachers list" if whole else "are listed where users × items are too many to be ranked whole"
    why = "co-teachers teach by lists" if whole else "so large a catalogue is taught by lists"
    for own in settings:
        if isinstance(own, ResponseSettings) and own.alpha > 0:
            remedy = f"leave it out, or give --co-teachers {NONE}" if whole else "leave it out"
            raise SettingError(f"alpha: it smooths the teacher's embeddings, and {why}; {remedy}")
        # What the student puts first is the teacher's list at the start.
        of_student = [("num_negatives", "num_hard"), ("in_turns", "num_candidates")]
        chosen = [(getattr(own, switch, False), name) for switch, name in of_student]
        for name in ["num_top", *(name for wanted, name in chosen if (not whole if wanted is None else wanted))]:
            if (wished := getattr(own, name, 0)) > length:
                remedy = f"give less, or --co-teachers {NONE}" if whole else "give less"
                raise SettingError(f"{name}: {wished} exceeds the {length} items a user that {who}; {remedy}")


def _parse_weight(part: str, number: str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = np.nan
    if not 0 < weight < np.inf:
        raise SettingError(f"co_teachers: the weight in '{part}' is not a number above 0")
    return weight


def blend_teachers(
    text: str,
    data: Interactions,
    teacher: Teacher | None,
    folder: Path,
    teacher_fingerprint: str | None,
    tau: float,
    *,
    eval_users: int | None = None,
) -> BlendedTeacher:
    """Make the teacher of a run that has co-teachers.

    Args:
        text: As `parse_co_teachers` reads it, not "none".
        data: Train to fit, validation to choose and to report, test to report.
        teacher: What is blended; None where interactions alone teach.
        folder: Where lists are kept, and found again when the run is resumed.
        teacher_fingerprint: Of the teacher's run.
        tau: The student's `score_temperature`.
        eval_users: On how many users the blend is measured, as in `Protocol`.

    Raises:
        SettingError: As `parse_co_teachers`, or a scorer that was asked for needs more memory than it may have.
    """
    made_of = json.dumps([data.fingerprint, teacher_fingerprint, text, LIBRARY, IDEAL_RANK, LISTED, HEAD, PERPLEXITY])
    store = ListStore(folder, hashlib.sha256(made_of.encode()).hexdigest())
    lists = _Lists(text, data, None if teacher is None else teacher.features, store)
    unseen = lists.of(data.train)
    own = teacher or Teacher(torch.empty(data.num_users + data.num_items, 0), data.num_users)
    report = lists.description | _quality(unseen, data, eval_users)
    return BlendedTeacher(**vars(own), lists=lists.of, temperature=tau, report=report)


def list_teacher(data: Interactions, teacher: Teacher, folder: Path, teacher_fingerprint: str | None) -> ListedTeacher:
    """Let a teacher rank a catalogue that is too large to be scored whole, and keep the lists.

    Args:
        data: Whose training items may be left out.
        teacher: Whose inner products.
        folder: Where lists are kept, and found again.
        teacher_fingerprint: Of the teacher's run.
    """
    made_of = json.dumps([data.fingerprint, teacher_fingerprint, float(teacher.features[0].abs().sum()), STORED])
    store = ListStore(folder, hashlib.sha256(made_of.encode()).hexdigest())
    unknown = drawn_order(data.num_items)

    def of(hidden: sp.csr_matrix) -> TopLists:
        return _stored(store, hidden, lambda: (Factors(teacher.users, teacher.items), {}), unknown)[0]

    report = _stored(store, data.train, lambda: (Factors(teacher.users, teacher.items), {}), unknown)[1]
    return ListedTeacher(**vars(teacher), lists=of, report=report)


def _stored(
    store: ListStore,
    hidden: sp.csr_matrix,
    make: Callable[[], tuple[Factors | Blended, Mapping[str, Any]]],
    unknown: npt.NDArray[np.int64],
) -> tuple[TopLists, dict[str, Any]]:
    """Open lists that an index made, or make them of a model and its description."""
    place = store.folder_of("unseen" if hidden.nnz else "all")
    with alone_in(store.folder):
        found = open_lists(place, hidden.shape[1])
        if found is None:
            model, description = make()
            store_lists(place, model, hidden, unknown, description)
            found = open_lists(place, hidden.shape[1])
    if found is None:
        raise RunError(f"{place}: cannot be read back as it was written; is the disk full?")
    return found


def describe_blend(weights: Mapping[str, float]) -> str:
    """Put a blend into words: "teacher + 0.5 turbocf (alpha 0.5, degree 1)"."""
    return " + ".join(name if weight == 1 else f"{weight:g} {name}" for name, weight in weights.items())


def _quality(unseen: TopLists, data: Interactions, eval_users: int | None) -> dict[str, Any]:
    """Reports of the blend's own lists, as in a run's `metrics.json`."""
    return report_splits(
        lambda protocol: evaluate_lists(lambda _, users, k: unseen.items[users, :k].astype(np.int64), data, protocol),
        data,
        eval_users,
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
        if not is_whole(*hidden.shape):
            return self._by_index(hidden)
        name = "unseen" if hidden.nnz else "all"
        with alone_in(self._store.folder):
            found = self._store.read(name, self._data.num_items)
            if found is None:
                return self._make(name, hidden)
        lists, self.description = found
        return lists

    def _make(self, name: str, hidden: sp.csr_matrix) -> TopLists:
        started = time.process_time()
        if self._blend is None:
            self._blend, self.description = self._choose()
        lists = list_top(_or_popular(self._blend.score_rows, self._data.train), hidden)
        self.description["processor_seconds"] = round(time.process_time() - started, 2)
        self._store.write(name, lists, self.description)
        return lists

    def _by_index(self, hidden: sp.csr_matrix) -> TopLists:
        popular = np.argsort(-self._data.item_popularity, kind="stable")
        lists, self.description = _stored(self._store, hidden, self._blend_factors, popular)
        head = np.asarray(lists.scores[:: max(1, len(lists.scores) // HEAD_USERS), :HEAD], dtype=np.float32)
        return lists.scaled(sharpness(head))

    def _blend_factors(self) -> tuple[Blended, dict[str, Any]]:
        """Choose a blend of factor models, and make it one."""
        started = time.process_time()
        wanted = parse_co_teachers(self._text)
        models, refused = _fit_factors(wanted, self._data, is_auto=self._text == AUTO)
        families: dict[str, dict[str, ScoreRows]] = {
            family: {name: _factor_scores(factors)} for family, (name, factors) in models.items()
        }
        known = dict(models.values())
        if self._features is not None:
            num_users = self._data.num_users
            known[TEACHER] = Factors(self._features[:num_users], self._features[num_users:])
            families = {TEACHER: {TEACHER: _factor_scores(known[TEACHER])}, **families}
        given = {name: weight for name, weight in wanted.items() if weight is not None}
        first = None if self._features is None else TEACHER
        choice = choose_blend(families, self._data, first=first, given=given or None)
        search = {f"validation {SEARCH_METRIC}": choice.value, "users": choice.num_users, "alone": dict(choice.alone)}
        description = {"weights": dict(choice.weights), "search": search, "left_out": refused}
        blended = Blended([(known[name], weight) for name, weight in choice.weights.items()])
        return blended, {**description, "processor_seconds": round(time.process_time() - started, 2)}

    def _choose(self) -> tuple[Blend, dict[str, Any]]:
        wanted = parse_co_teachers(self._text)
        families, refused = _fit(wanted, self._data, is_auto=self._text == AUTO)
        first = None
        if self._features is not None:
            first = TEACHER
            families = {TEACHER: {TEACHER: _inner_products(self._features, self._data.num_users)}, **families}
        given = {name: weight for name, weight in wanted.items() if weight is not None}
        choice = choose_blend(families, self._data, first=first, given=given or None)
        members = {name: rows for family in families.values() for name, rows in family.items()}
        search = {f"validation {SEARCH_METRIC}": choice.value, "users": choice.num_users, "alone": dict(choice.alone)}
        return Blend(members, choice.weights), {"weights": dict(choice.weights), "search": search, "left_out": refused}


def _or_popular(score_rows: ScoreRows, train: sp.csr_matrix) -> ScoreRows:
    """Of users about whom nothing is known, all of whose scores are equal, score items by their popularity instead."""
    popular = popularity(train).score_rows

    def rows(users: Rows) -> torch.Tensor:
        scores = torch.as_tensor(score_rows(users))
        unknown = scores.amax(dim=1) == scores.amin(dim=1)
        if bool(unknown.any()):
            scores[unknown] = standardise(popular, users[unknown.numpy()])
        return scores

    return rows


def _inner_products(features: torch.Tensor, num_users: int) -> ScoreRows:
    users, columns = features[:num_users], features[num_users:].T.contiguous()
    return lambda rows: users[torch.from_numpy(rows)] @ columns


def _factor_scores(factors: Factors) -> ScoreRows:
    columns = factors.items.float().T
    return lambda rows: factors.users[torch.from_numpy(rows)].float() @ columns


def _fit_factors(
    names: Iterable[str], data: Interactions, *, is_auto: bool
) -> tuple[dict[str, tuple[str, Factors]], dict[str, str]]:
    """Family → name and vectors of models whose scores are inner products, and why others are left out."""
    reason = (
        f"{data.num_users:,} users × {data.num_items:,} items are ranked by inverted lists, which need scores that are "
        f"inner products, as those of {', '.join(FACTORS)}"
    )
    refused = {name: reason for name in names if name not in FACTORS}
    if refused and not is_auto:
        raise SettingError(f"co_teachers: '{next(iter(refused))}': {reason}; name those, or give {AUTO} or {NONE}")
    chosen = FACTORS if is_auto else [name for name in names if name in FACTORS]
    models = {}
    for name in tqdm(chosen, desc="fitting co-teachers", unit="family", disable=None, leave=False):
        if name == "ials":
            settings = LIBRARY[name][0]
            words = ", ".join(f"{key} {value:g}" for key, value in settings.items())
            models[name] = f"{name} ({words})", Factors(*_require_factors(BASELINES[name](data.train, **settings)))
        else:
            fitted = ideal_filter(data.train, FACTOR_RANK, IDEAL[name])
            models[name] = f"{name} (rank {FACTOR_RANK})", Factors(*_require_factors(fitted))
    return models, refused


def _require_factors(baseline: Baseline) -> tuple[torch.Tensor, torch.Tensor]:
    if baseline.factors is None:
        raise TypeError("its scores are no inner products")
    return baseline.factors()


def _fit(names: Iterable[str], data: Interactions, *, is_auto: bool) -> tuple[Families, dict[str, str]]:
    """Families of scorers, and why some are left out."""
    families: dict[str, dict[str, ScoreRows]] = {}
    refused: dict[str, str] = {}
    for name in tqdm(names, desc="fitting co-teachers", unit="family", disable=None, leave=False):
        try:
            families[name] = _fit_family(name, data, AUTO_EASE_MAX_BYTES if is_auto else EASE_MAX_BYTES)
        except SettingError as error:
            if not is_auto:
                raise
            refused[name] = f"{error}; or name it: --co-teachers {','.join(LIBRARY)}"
    return families, refused


def _fit_family(name: str, data: Interactions, ease_max_bytes: int) -> dict[str, ScoreRows]:
    if name in IDEAL:
        return {name: ideal_filter(data.train, IDEAL_RANK, IDEAL[name]).score_rows}
    shared = dict(SHARED[name](data.train)) if name in SHARED else {}
    if name == "ease":
        shared["max_bytes"] = ease_max_bytes
    return {
        f"{name} ({', '.join(f'{key} {value:g}' for key, value in settings.items())})": BASELINES[name](
            data.train, **settings, **shared
        ).score_rows
        for settings in LIBRARY[name]
    }
