"""Temperatures in units of what a backbone scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from distill.backbones import BACKBONES
from distill.backbones.simplex import SimpleX
from distill.data.interactions import Interactions
from distill.methods import METHODS, Teacher
from distill.methods.cross_entropy import CrossEntropySettings
from distill.methods.kl import KullbackLeibler
from distill.methods.responses import ResponseSettings, scale_temperature


@pytest.mark.parametrize(("backbone", "expected"), [("bprmf", 2.0), ("lightgcn", 2.0), ("simplex", 0.1)])
def test_cosines_are_sharpened(checkerboard: Interactions, backbone: str, expected: float) -> None:
    student = BACKBONES[backbone].build(BACKBONES[backbone].Settings(), checkerboard, 4)
    settings = CrossEntropySettings(temperature=2.0, num_top=7)
    suited = scale_temperature(settings, student)
    assert suited.temperature == pytest.approx(expected)
    assert replace(suited, temperature=2.0) == settings


@pytest.mark.parametrize("name", ["ce", "kl", "rcekd"])
def test_every_softmax_over_scores_is_suited(checkerboard: Interactions, name: str) -> None:
    student = SimpleX.build(SimpleX.Settings(), checkerboard, 4)
    teacher = Teacher(torch.randn(checkerboard.num_users + checkerboard.num_items, 9), checkerboard.num_users)
    method: Any = METHODS[name].build(METHODS[name].Settings(temperature=3.0), checkerboard, student, teacher)
    assert method.settings.temperature == pytest.approx(0.15)


def test_settings_are_left_alone(checkerboard: Interactions) -> None:
    given = ResponseSettings(temperature=1.0)
    student = SimpleX.build(SimpleX.Settings(), checkerboard, 4)
    teacher = Teacher(torch.randn(checkerboard.num_users + checkerboard.num_items, 9), checkerboard.num_users)
    KullbackLeibler.build(given, checkerboard, student, teacher)
    assert given.temperature == 1.0
