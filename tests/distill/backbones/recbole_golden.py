"""What RecBole computed on a toy graph (`tests/golden`), for the tests of the backbones that are compared with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from distill.backbones import Backbone
from distill.backbones.sampling import Batch
from distill.data.interactions import Interactions
from tests.distill.toy import build_interactions

FILE = Path(__file__).resolve().parents[2] / "golden" / "recbole_backbones.json"


class RecBoleGolden:
    """The interactions, the raw embeddings, and what one model made of them.

    Attributes: settings and results of the model; the raw embeddings, users first; its batch; its embeddings, users
    first; its loss, summed over the batch as ours is.
    """

    def __init__(self, name: str) -> None:
        values: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
        self.pairs = [(user, item) for user, item in values["pairs"]]
        self.shape = (len(values["users"]), len(values["items"]))
        self.table = torch.tensor([*values["users"], *values["items"]])
        self.weight = torch.tensor(values["weight"])
        self.model: dict[str, Any] = values[name]
        self.batch = Batch(**{role: torch.tensor(rows) for role, rows in self.model["batch"].items()})
        self.embeddings = torch.tensor([*self.model["user_embeddings"], *self.model["item_embeddings"]])
        self.loss = float(self.model["mean_loss"]) * len(self.batch.users)

    def interactions(self) -> Interactions:
        return build_interactions(self.shape, self.pairs)

    def start(self, model: Backbone) -> None:
        with torch.no_grad():
            model.features.copy_(self.table)
