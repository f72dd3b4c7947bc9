"""HTD: hierarchical topology distillation, which teaches similarities among entities, within groups and across them.

Entities are put into K groups of users and K of items by a gate on their teacher's feature, which learns as DE's gate
does. With cos the matrix of cosine similarities of R rows, G the mask of pairs in one group and p_g the mean row of a
group (held fixed, the student's as well as the teacher's),

    L_topology = Σ_ij G_ij (cos(s_i, s_j) − cos(t_i, t_j))² + Σ_gi (cos(p^s_g, s_i) − cos(p^t_g, t_i))²
    L_group    = Σ_i ‖t_i − Σ_k z_ik E_k(s_i)‖²,  z_i = softmax((ln α(t_i) + g_i) / T)
    total      = base + β (γ L_topology + (1 − γ) L_group).

Entities of one group are compared with each other, all entities with the group means: the design that the paper calls
Group(P, e). Its other one, Group(P, P), compares means with means, which teaches nothing where means are held fixed.

Cost of a step. R, users and items half each, is bounded by `max_rows` and drawn from the batch, because it counts
squared: 2 R² (d_t + 3 d_s) operations and 20 R² bytes for similarities, 8 R K (d_t + 3 d_s) for the means. At T = 0.1
about 4 of the experts have a share in a row: 3 (d_s + d_t)² operations each (see `distill.methods.projector`).

Where this is not the authors' code: it takes all entities of a batch, and leaves pairs of one group out of the first
sum where the teacher's similarity is not positive, which the paper does not.

References:
    Kang, Hwang, Kweon and Yu, "Topology Distillation for Recommender System", KDD 2021 (arXiv 2106.08700);
    github.com/SeongKu-Kang/Topology_Distillation_KDD21, class HTD with choice "second".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from distill.backbones.base import Backbone
from distill.data.interactions import Interactions
from distill.errors import SettingError
from distill.methods.base import Method, Step, Teacher, require_not_negative, require_teacher
from distill.methods.features import batch_entities
from distill.methods.projector import GatedExperts
from distill.rows import gather_rows


@dataclass(frozen=True)
class TopologyDistillationSettings:
    """Settings of HTD; each changes the result.

    Attributes:
        distillation_weight: β (the loss is a sum over pairs and entities).
        topology_share: γ.
        num_groups: K, groups of users and again of items.
        temperature: T of the gate.
        max_rows: Bound on R; half of it users, half items.
    """

    distillation_weight: float = 0.1
    topology_share: float = 0.5
    num_groups: int = 30
    temperature: float = 0.1
    max_rows: int = 512

    def __post_init__(self) -> None:
        require_not_negative(self, "distillation_weight")
        if not 0 <= self.topology_share <= 1:
            raise SettingError(f"topology_share: {self.topology_share} is outside [0, 1]")
        if self.num_groups < 1:
            raise SettingError(f"num_groups: {self.num_groups} is below 1")
        if self.temperature <= 0:
            raise SettingError(f"temperature: {self.temperature} is not above 0")
        if self.max_rows < 2:
            raise SettingError(f"max_rows: {self.max_rows} is below 2, a user and an item")


class TopologyDistillation(Method):
    """Matches how entities lie to each other, not where they lie."""

    Settings = TopologyDistillationSettings

    def __init__(self, settings: TopologyDistillationSettings, student: Backbone, teacher: Teacher) -> None:
        """Draw the experts and the gates."""
        super().__init__()
        self.settings = settings
        self.num_users = teacher.num_users
        self.user_experts = GatedExperts(student.dim, teacher.dim, settings.num_groups)
        self.item_experts = GatedExperts(student.dim, teacher.dim, settings.num_groups)
        self._targets: torch.Tensor
        self.register_buffer("_targets", teacher.features, persistent=False)

    @classmethod
    def build(
        cls, settings: TopologyDistillationSettings, data: Interactions, student: Backbone, teacher: Teacher | None
    ) -> TopologyDistillation:
        """Take the teacher's rows as they are.

        Raises:
            SettingError: There is no teacher.
        """
        return cls(settings, student, require_teacher(teacher, "htd"))

    def distillation_loss(self, step: Step) -> torch.Tensor:
        """Sum the weighted loss over the rows that were drawn: a scalar."""
        users, items = self._draw(step)
        entities, share = torch.cat([users, items]), self.settings.topology_share
        rows, targets = gather_rows(step.features, entities), self._targets[entities]
        parts = (slice(None, len(users)), slice(len(users), None))
        group_loss, groups = rows.new_zeros(()), []
        for experts, part in zip((self.user_experts, self.item_experts), parts, strict=True):
            projected = experts(rows[part], targets[part], self.settings.temperature, step.generator)
            group_loss = group_loss + (targets[part] - projected).square().sum()
            groups.append(experts.choose(targets[part]))
        groups[1] = groups[1] + self.settings.num_groups
        topology = topology_loss(rows, targets, torch.cat(groups))
        return self.settings.distillation_weight * (share * topology + (1.0 - share) * group_loss)

    def _draw(self, step: Step) -> list[torch.Tensor]:
        """Entity rows of the batch's users and of its items, at most half of `max_rows` each."""
        entities, _, num_user_rows = batch_entities(step.batch, self.num_users)
        limit, drawn = self.settings.max_rows // 2, []
        for kind in (entities[:num_user_rows], entities[num_user_rows:]):
            order = torch.randperm(len(kind), generator=step.generator, device=kind.device)
            drawn.append(kind[order[:limit]])
        return drawn


def topology_loss(rows: torch.Tensor, targets: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Sum the squared differences of the similarities within groups, and to the means of groups.

    Args:
        rows: The student's, shape (R, d_s).
        targets: The teacher's, shape (R, d_t).
        groups: Group of each row, int64 of shape (R,).

    Returns:
        A scalar.
    """
    _, members = torch.unique(groups, return_inverse=True)
    membership = F.one_hot(members).to(rows.dtype)
    means = membership.T / membership.sum(dim=0)[:, None]
    same = groups[:, None] == groups[None]
    own, known = F.normalize(rows), F.normalize(targets)
    within = ((own @ own.T - known @ known.T) * same).square().sum()
    own_means, known_means = F.normalize(means @ rows.detach()), F.normalize(means @ targets)
    across = (own_means @ own.T - known_means @ known.T).square().sum()
    return within + across
