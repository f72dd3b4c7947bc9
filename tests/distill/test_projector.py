from __future__ import annotations

import pytest
import torch

from distill.projector import PROJECTORS, LinearProjector, ProjectorKind, build_projector, row_moments

KINDS: tuple[ProjectorKind, ...] = ("linear", "mlp")


def gradients(
    projector: torch.nn.Module, rows: torch.Tensor, outputs: tuple[torch.Tensor, torch.Tensor]
) -> list[torch.Tensor]:
    inner, squared_norm = outputs
    loss = (inner * torch.arange(len(inner))).sum() + (squared_norm * torch.arange(len(inner)).flip(0)).sum()
    return list(torch.autograd.grad(loss, [rows, *projector.parameters()]))


@pytest.mark.parametrize("kind", KINDS)
def test_moments_equal_those_of_the_explicit_projection_with_gradients(kind: ProjectorKind) -> None:
    torch.manual_seed(3)
    projector = build_projector(kind, 4, 11).double()
    rows = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(6, 11, dtype=torch.float64)
    found = projector.moments(rows, targets)
    projected = projector(rows)
    assert projected.shape == (6, 11)
    explicit = (torch.einsum("bd,bd->b", projected, targets), torch.linalg.vector_norm(projected, dim=1) ** 2)
    for ours, expected in zip(found, explicit, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    for ours, expected in zip(gradients(projector, rows, found), gradients(projector, rows, explicit), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


def test_row_moments_by_hand() -> None:
    inner, squared_norm = row_moments(torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[4.0, 5.0], [6.0, -1.0]]))
    assert inner.tolist() == [14.0, -3.0]
    assert squared_norm.tolist() == [5.0, 9.0]


def test_a_linear_projector_is_linear_and_says_so() -> None:
    torch.manual_seed(0)
    projector = LinearProjector(3, 5)
    one, two = torch.randn(2, 3), torch.randn(2, 3)
    torch.testing.assert_close(projector(2 * one + two), 2 * projector(one) + projector(two))
    assert projector.is_linear
    assert not build_projector("mlp", 3, 5).is_linear


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_fixes_the_initial_weights(kind: ProjectorKind) -> None:
    states = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        states.append(torch.cat([value.flatten() for value in build_projector(kind, 3, 5).parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_every_registered_projector_is_tested() -> None:
    assert set(PROJECTORS) == set(KINDS)
