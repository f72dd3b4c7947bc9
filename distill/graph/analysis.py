"""What a student kept of its teacher, by knowledge group: the analysis behind the paper's Figures 1 and 2.

Training throws its projector away, and `scratch` never had one. So each student is measured through the best linear
projector there is, found afterwards by least squares, one for users and one for items. The losses are therefore a
floor: a linear projector of any training leaves at least that much in total, though not in each single group. A group
may even lose more than the teacher has in it, and the kept share 1 − loss / energy is then negative.

The loss is the squared one of Theorem 1 (arXiv 2411.10676), which splits over the frequencies; cosine does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import scipy.linalg
import scipy.sparse as sp
from tqdm import tqdm

from distill.data.interactions import Interactions
from distill.graph.adjacency import bipartite_adjacency, cooccurrence_adjacency, symmetric_normalization
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

Graph = Literal["bipartite", "cooccurrence"]
Grouping = Literal["equal-width", "equal-count"]

METRIC = "Recall@20"


class KnowledgeGroups(Protocol):
    """Frequencies of one graph, grouped; `ExactGroups` and `ChebyshevBands` are the two there are.

    Attributes:
        bounds: Lowest and highest frequency of each group, shape (G, 2).
        counts: Number of frequencies in each group, shape (G,).
        leakage: Share of one frequency's energy that may show in a foreign group.
    """

    bounds: Values
    counts: Values
    leakage: float

    def energies(self, features: Features) -> Values:
        """Energy of X, shape (N, d), in each group, shape (G,); the groups sum to ‖X‖²."""
        ...


@dataclass(frozen=True)
class StudentAnalysis:
    """A student against its teacher, by group.

    Attributes:
        name: The run's.
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
        groups: The grouping.
        teacher: The teacher's name.
        teacher_energies: Energy of X_t, shape (G,).
        students: One entry a run, in the order given.
    """

    groups: KnowledgeGroups
    teacher: str
    teacher_energies: Values
    students: tuple[StudentAnalysis, ...]

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
        """The numbers, ready for JSON; None stands for a kept share that means nothing."""
        return {
            "basis": "chebyshev" if isinstance(self.groups, ChebyshevBands) else "exact",
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


def build_graph(data: Interactions, graph: Graph, num_neighbors: int) -> sp.csr_matrix:
    """Build Â over the training interactions, as FreqD filters it.

    Args:
        data: The interactions.
        graph: "bipartite" or "cooccurrence".
        num_neighbors: Neighbours kept for each entity of the co-occurrence graph.

    Returns:
        CSR of shape (N, N).
    """
    if graph == "bipartite":
        return symmetric_normalization(bipartite_adjacency(data.train))
    return symmetric_normalization(cooccurrence_adjacency(data.train, num_neighbors))


def build_groups(
    normalized_adjacency: sp.csr_matrix, num_groups: int, grouping: Grouping, rng: np.random.Generator
) -> KnowledgeGroups:
    """Group the frequencies: from the eigenbasis up to `MAX_ENTITIES`, by Chebyshev windows beyond.

    Args:
        normalized_adjacency: Â, symmetric CSR of shape (N, N).
        num_groups: G.
        grouping: "equal-width" in frequency, or "equal-count", the same number of frequencies in each.
        rng: Estimates the number of frequencies in a group where there is no eigenbasis.

    Raises:
        SettingError: Equal counts without an eigenbasis, or more groups than frequencies.
    """
    if grouping == "equal-count":
        return equal_count_groups(exact_spectrum(normalized_adjacency), num_groups)
    if normalized_adjacency.shape[0] <= MAX_ENTITIES:
        return equal_width_groups(exact_spectrum(normalized_adjacency), num_groups)
    return ChebyshevBands(normalized_adjacency, num_groups, rng)


def project_best(student: Features, teacher: Features, num_users: int) -> Features:
    """P(X_s) with the linear projectors (no bias) that minimise ‖X_t − P(X_s)‖², one for users and one for items.

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


def analyze(
    groups: KnowledgeGroups, teacher: Run, students: Sequence[Run], names: Sequence[str], *, progress: bool = False
) -> Analysis:
    """Split the teacher's features and each student's loss over knowledge groups.

    Args:
        groups: Groups of the frequencies of a graph over the runs' entities.
        teacher: The run to keep.
        students: Runs on the same data.
        names: What to call the students.
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
    return Analysis(groups, str(teacher.path), energies, tuple(analysed))


def stack_features(run: Run) -> Features:
    """X of a run, users first, float32 of shape (N, d)."""
    return np.concatenate([run.user_embeddings, run.item_embeddings])


def _analyze_student(
    groups: KnowledgeGroups, teacher: Features, run: Run, name: str, num_users: int
) -> StudentAnalysis:
    student = stack_features(run)
    gap = project_best(student, teacher, num_users)
    np.subtract(teacher, gap, out=gap)
    quality = run.metrics.get("test", {}).get(METRIC)
    return StudentAnalysis(name, run.dim, quality, groups.energies(student), groups.energies(gap))


def render_analysis(analysis: Analysis) -> str:
    """Two Markdown tables: a line a run, then a line a group."""
    lines = [f"| run | d | test {METRIC} | loss | kept |", "|---" * 5 + "|"]
    for student in analysis.students:
        quality = "–" if student.quality is None else f"{student.quality:.4f}"
        loss, kept = student.losses.sum(), analysis.kept_in_all(student)
        lines.append(f"| {student.name} | {student.dim} | {quality} | {loss:.4g} | {kept:.3f} |")
    header = ["frequency", "share of frequencies", "of the teacher's energy"]
    header += [f"{student.name} keeps" for student in analysis.students]
    lines += ["", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    columns = [values / values.sum() for values in (analysis.groups.counts, analysis.teacher_energies)]
    columns += [analysis.kept(student) for student in analysis.students]
    for (low, high), shares in zip(analysis.groups.bounds, np.column_stack(columns), strict=True):
        lines.append("| " + " | ".join([f"{low:.3f}–{high:.3f}", *(_cell(share) for share in shares)]) + " |")
    return "\n".join(lines)


def _cell(share: float) -> str:
    return "–" if math.isnan(share) else f"{share:.4f}"
