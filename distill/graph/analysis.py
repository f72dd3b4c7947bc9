"""What students kept of their teacher in each knowledge group: computed, and read back from `analysis.json`.

It is the analysis behind Figures 1 and 2 of FreqD (arXiv 2411.10676). Training throws its projector away, and `scratch`
never had one. So each student is measured through the best linear projector there is, found afterwards by least
squares, one for users and one for items. The losses are therefore a floor: a linear projector of any training leaves at
least that much in total, though not in each single group. A group may even lose more than the teacher has in it, and
the kept share 1 − loss / energy is then negative.

The loss is the squared one of the paper's Theorem 1, which splits over the frequencies; cosine does not.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse as sp
from tqdm import tqdm

from distill.data.interactions import Interactions
from distill.errors import RunError
from distill.graph.adjacency import Graph, build_graph
from distill.graph.bands import ChebyshevBands
from distill.graph.spectrum import (
    MAX_ENTITIES,
    Features,
    Values,
    equal_count_groups,
    equal_width_groups,
    exact_spectrum,
)
from distill.run import Run

Grouping = Literal["equal-width", "equal-count"]

METRIC = "Recall@20"
SEED = 0
"""Of the estimated number of frequencies in a band; energies and losses draw nothing."""


class KnowledgeGroups(Protocol):
    """Frequencies of one graph, grouped: `ExactGroups` or `ChebyshevBands`. `Groups` describes the attributes."""

    bounds: Values
    counts: Values
    leakage: float

    def energies(self, features: Features) -> Values:
        """Energy of X, shape (N, d), in each group, shape (G,); the groups sum to ‖X‖²."""
        ...


@dataclass(frozen=True)
class View:
    """Which graph is looked at, and how its frequencies are grouped.

    Attributes:
        graph: "bipartite" or "cooccurrence".
        num_neighbors: Neighbours kept for each entity of the co-occurrence graph.
        num_groups: G; an odd number keeps frequency 1 inside one group.
        grouping: "equal-width" in frequency, or "equal-count", the same number of frequencies in each.
    """

    graph: Graph = "bipartite"
    num_neighbors: int = 5
    num_groups: int = 21
    grouping: Grouping = "equal-width"


@dataclass(frozen=True)
class Groups:
    """Where knowledge groups lie and how many frequencies they hold, without the frequencies themselves.

    Attributes:
        bounds: Lowest and highest frequency of each group, shape (G, 2).
        counts: Number of frequencies in each group, shape (G,).
        leakage: Share of one frequency's energy that may show in a foreign group.
        basis: "exact", or "chebyshev" for groups with soft boundaries.
    """

    bounds: Values
    counts: Values
    leakage: float
    basis: str


@dataclass(frozen=True)
class StudentAnalysis:
    """A student against its teacher, by group.

    Attributes:
        name: Unique in the analysis.
        dim: d_s.
        quality: Test Recall@20, or None where it was never measured.
        energies: Energy of X_s, shape (G,).
        losses: Energy of X_t − P(X_s), shape (G,).
    """

    name: str
    dim: int
    quality: float | None
    energies: Values
    losses: Values


@dataclass(frozen=True)
class Analysis:
    """A teacher's knowledge groups, and what students kept of them.

    Attributes:
        groups: Where the groups lie.
        teacher: The teacher's run directory.
        teacher_energies: Energy of X_t, shape (G,).
        students: One entry a run, in the order given.
        view: How graph and groups were made.
        data: Name of the data set.
        isolated_entities: Users and items without an edge; they stand at frequency 1.
    """

    groups: Groups
    teacher: str
    teacher_energies: Values
    students: tuple[StudentAnalysis, ...]
    view: View = View()
    data: str = ""
    isolated_entities: int = 0

    @property
    def occupied(self) -> npt.NDArray[np.bool_]:
        """Whether the teacher has more in a group than other groups may leak into it, shape (G,)."""
        mask: npt.NDArray[np.bool_] = self.teacher_energies > self.groups.leakage * self.teacher_energies.sum()
        return mask

    def kept(self, student: StudentAnalysis) -> Values:
        """1 − loss / the teacher's energy in each group, shape (G,); NaN where it is not `occupied`."""
        shares = np.full(len(self.teacher_energies), np.nan)
        np.divide(student.losses, self.teacher_energies, out=shares, where=self.occupied)
        return 1 - shares

    def kept_in_all(self, student: StudentAnalysis) -> float:
        """1 − loss / the teacher's energy over all groups together, in [0, 1]."""
        return float(1 - student.losses.sum() / self.teacher_energies.sum())

    def as_dict(self) -> dict[str, Any]:
        """Return what `analysis.json` holds; None stands for a kept share that means nothing."""
        return {
            "data": self.data,
            "graph": self.view.graph,
            "num_neighbors": self.view.num_neighbors,
            "grouping": self.view.grouping,
            "isolated_entities": self.isolated_entities,
            "basis": self.groups.basis,
            "leakage": self.groups.leakage,
            "projector": "linear, by least squares after training, one for users and one for items",
            "groups": [
                {"from": low, "to": high, "frequencies": count}
                for (low, high), count in zip(self.groups.bounds.tolist(), self.groups.counts.tolist(), strict=True)
            ],
            "teacher": {"run": self.teacher, "energies": self.teacher_energies.tolist()},
            "students": [
                {
                    "run": student.name,
                    "dim": student.dim,
                    METRIC: student.quality,
                    "energies": student.energies.tolist(),
                    "losses": student.losses.tolist(),
                    "kept": [None if math.isnan(share) else share for share in self.kept(student).tolist()],
                    "kept_in_all": self.kept_in_all(student),
                }
                for student in self.students
            ],
        }


def build_groups(
    normalized_adjacency: sp.csr_matrix,
    num_groups: int,
    grouping: Grouping,
    rng: np.random.Generator,
    *,
    progress: bool = False,
) -> KnowledgeGroups:
    """Group the frequencies of a graph: by its eigenbasis up to `MAX_ENTITIES`, by Chebyshev windows beyond.

    Args:
        normalized_adjacency: Â, symmetric CSR of shape (N, N).
        num_groups: G.
        grouping: As in `View`.
        rng: Estimates the number of frequencies in a group where there is no eigenbasis.
        progress: Show bars where somebody looks.

    Raises:
        SettingError: Equal counts without an eigenbasis, or more groups than frequencies.
    """
    if grouping == "equal-count":
        return equal_count_groups(exact_spectrum(normalized_adjacency), num_groups)
    if normalized_adjacency.shape[0] <= MAX_ENTITIES:
        return equal_width_groups(exact_spectrum(normalized_adjacency), num_groups)
    return ChebyshevBands(normalized_adjacency, num_groups, rng, progress=progress)


def project_by_least_squares(student: Features, teacher: Features, num_users: int) -> Features:
    """Compute P(X_s) by the linear projectors (no bias) that minimise ‖X_t − P(X_s)‖², one for users, one for items.

    Args:
        student: X_s, users first, shape (N, d_s).
        teacher: X_t, shape (N, d_t).
        num_users: |U|.

    Returns:
        Shape (N, d_t), of the teacher's type.
    """
    projected = np.empty_like(teacher)
    for side in (slice(None, num_users), slice(num_users, None)):
        basis = scipy.linalg.orth(student[side].astype(np.float64)).astype(teacher.dtype)
        np.matmul(basis, basis.T @ teacher[side], out=projected[side])
    return projected


def analyze_data(
    data: Interactions,
    teacher: Run,
    students: Sequence[Run],
    names: Sequence[str],
    view: View,
    *,
    progress: bool = False,
) -> Analysis:
    """Build the graph of a data set and its knowledge groups, and analyse runs over them.

    Args:
        data: What the runs were trained on.
        teacher: The run to keep.
        students: Runs on the same data.
        names: What to call the students.
        view: How to make graph and groups.
        progress: Show a bar where somebody looks.

    Raises:
        SettingError: Equal counts on a graph too large for an eigenbasis, or more groups than frequencies.
    """
    adjacency = build_graph(data, view.graph, view.num_neighbors)
    rng = np.random.default_rng(SEED)
    groups = build_groups(adjacency, view.num_groups, view.grouping, rng, progress=progress)
    analysis = analyze(groups, teacher, students, names, progress=progress)
    isolated = int(np.sum(np.diff(adjacency.indptr) == 0))
    return replace(analysis, view=view, data=data.name, isolated_entities=isolated)


def analyze(
    groups: KnowledgeGroups, teacher: Run, students: Sequence[Run], names: Sequence[str], *, progress: bool = False
) -> Analysis:
    """Split the teacher's features and each student's loss over knowledge groups.

    Args:
        groups: Of the frequencies of a graph over the runs' entities.
        teacher: What the students are measured against.
        students: Runs on the same data.
        names: One for each student.
        progress: Show a bar where somebody looks.
    """
    features, num_users = stack_features(teacher), len(teacher.user_embeddings)
    with tqdm(total=1 + len(students), desc="analysing", unit="run", disable=None if progress else True) as bar:
        energies = groups.energies(features)
        bar.update()
        analysed = []
        for run, name in zip(students, names, strict=True):
            analysed.append(_analyze_student(groups, features, run, name, num_users))
            bar.update()
    basis = "chebyshev" if isinstance(groups, ChebyshevBands) else "exact"
    kept = Groups(groups.bounds, groups.counts, groups.leakage, basis)
    return Analysis(kept, str(teacher.path), energies, tuple(analysed))


def read_analysis(path: Path) -> Analysis:
    """Read what `lowpass analyze --out` wrote.

    Raises:
        RunError: The file is unreadable, or no analysis.
    """
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except KeyError as error:
        raise RunError(f"{path}: has no field {error}; 'lowpass analyze --out' writes it") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path}: unreadable ({error}); 'lowpass analyze --out' writes it") from error


def _parse(found: Mapping[str, Any]) -> Analysis:
    bounds = np.array([(group["from"], group["to"]) for group in found["groups"]], dtype=np.float64)
    counts = np.array([group["frequencies"] for group in found["groups"]], dtype=np.float64)
    students = [
        StudentAnalysis(
            each["run"],
            each["dim"],
            each[METRIC],
            np.array(each["energies"], dtype=np.float64),
            np.array(each["losses"], dtype=np.float64),
        )
        for each in found["students"]
    ]
    return Analysis(
        Groups(bounds, counts, float(found["leakage"]), found["basis"]),
        found["teacher"]["run"],
        np.array(found["teacher"]["energies"], dtype=np.float64),
        tuple(students),
        View(found["graph"], found["num_neighbors"], len(bounds), found["grouping"]),
        found["data"],
        found["isolated_entities"],
    )


def stack_features(run: Run) -> Features:
    """Stack the embeddings of a run, users first: float32 of shape (N, d)."""
    return np.concatenate([run.user_embeddings, run.item_embeddings], dtype=np.float32)


def _analyze_student(
    groups: KnowledgeGroups, teacher: Features, run: Run, name: str, num_users: int
) -> StudentAnalysis:
    student = stack_features(run)
    gap = project_by_least_squares(student, teacher, num_users)
    np.subtract(teacher, gap, out=gap)
    quality = run.metrics.get("test", {}).get(METRIC)
    return StudentAnalysis(name, run.dim, quality, groups.energies(student), groups.energies(gap))
