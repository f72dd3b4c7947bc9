from __future__ import annotations

import tests.distill.backbones
from distill.backbones import BACKBONES
from tests.kits.backbone_kit import BackboneKit
from tests.kits.registry import subclasses_in


def test_every_registered_backbone_passes_the_kit() -> None:
    assert {vars(kit).get("name") for kit in subclasses_in(tests.distill.backbones, BackboneKit)} == set(BACKBONES)
