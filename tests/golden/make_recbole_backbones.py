"""Makes `recbole_backbones.json`: what RecBole's LightGCN and SimpleX compute on a toy graph.

    cd REPOSITORY && RECBOLE/bin/python -m tests.golden.make_recbole_backbones

Run once, with RecBole 1.2.1 (see `recbole_models`); the tests of our backbones compare with the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import recbole
import torch

from tests.golden.recbole_models import open_model

TARGET = Path(__file__).with_name("recbole_backbones.json")
NUM_USERS, NUM_ITEMS, DIM = 6, 7, 4
# Both users and items first appear in the order of their numbers, so that RecBole keeps it.
PAIRS = (
    (0, 0), (0, 1), (0, 2), (1, 1), (1, 3), (2, 0), (2, 3), (2, 4), (2, 5),
    (3, 2), (3, 5), (4, 6), (5, 0), (5, 1), (5, 3), (5, 6),
)  # fmt: skip
TRIPLES = {"users": (0, 2, 5, 4), "positives": (1, 4, 3, 6), "negatives": (5, 2, 4, 0)}
# SimpleX is given the whole catalogue as negatives, less what a user has taken; both users have taken two items.
SHARED = {"users": (1, 1, 3, 3), "positives": (1, 3, 2, 5), "negatives": tuple(range(NUM_ITEMS))}
MARGIN, NEGATIVE_WEIGHT, GAMMA, NUM_LAYERS = 0.4, 10.0, 0.7, 3


def padded(rows: Any) -> torch.Tensor:
    """RecBole's row 0 is padding."""
    return torch.nn.functional.pad(torch.as_tensor(rows), (0, 0, 1, 0))


def shifted(rows: tuple[int, ...]) -> torch.Tensor:
    """Our row numbers as RecBole's."""
    return torch.tensor(rows) + 1


def untaken(user: int) -> tuple[int, ...]:
    """The negatives that a user has not taken."""
    return tuple(item for item in SHARED["negatives"] if (user, item) not in PAIRS)


def lightgcn(users: Any, items: Any, directory: Path) -> dict[str, Any]:
    """Propagated embeddings and the mean BPR loss of the batch."""
    config, _, model = open_model("LightGCN", PAIRS, directory, embedding_size=DIM, n_layers=NUM_LAYERS, reg_weight=0.0)
    with torch.no_grad():
        model.user_embedding.weight.copy_(padded(users))
        model.item_embedding.weight.copy_(padded(items))
        user_embeddings, item_embeddings = model.forward()
        batch = {
            config["USER_ID_FIELD"]: shifted(TRIPLES["users"]),
            config["ITEM_ID_FIELD"]: shifted(TRIPLES["positives"]),
            config["NEG_PREFIX"] + config["ITEM_ID_FIELD"]: shifted(TRIPLES["negatives"]),
        }
        loss = model.calculate_loss(batch).item()
    return {
        "num_layers": NUM_LAYERS,
        "batch": TRIPLES,
        "user_embeddings": user_embeddings[1:].tolist(),
        "item_embeddings": item_embeddings[1:].tolist(),
        "mean_loss": loss,
    }


def simplex(users: Any, items: Any, weight: Any, directory: Path) -> dict[str, Any]:
    """Normalised vectors and the mean cosine contrastive loss against all that a user has not taken."""
    settings = {"margin": MARGIN, "negative_weight": NEGATIVE_WEIGHT, "gamma": GAMMA, "aggregator": "mean"}
    _, _, model = open_model(
        "SimpleX", PAIRS, directory, embedding_size=DIM, dropout_prob=0.0, reg_weight=0.0, history_len=50, **settings
    )
    with torch.no_grad():
        model.user_emb.weight.copy_(padded(users))
        model.item_emb.weight.copy_(padded(items))
        model.UI_map.weight.copy_(torch.as_tensor(weight))
        history, lengths = model.item_emb(model.history_item_id), model.history_item_len
        vectors = model.get_UI_aggregation(model.user_emb.weight, history, lengths)
        batch, positives = shifted(SHARED["users"]), shifted(SHARED["positives"])
        negatives = torch.stack([shifted(untaken(user)) for user in SHARED["users"]])
        loss = model.forward(batch, positives, model.history_item_id[batch], lengths[batch], negatives)
    return {
        **settings,
        "batch": SHARED,
        "user_embeddings": torch.nn.functional.normalize(vectors[1:]).tolist(),
        "item_embeddings": torch.nn.functional.normalize(model.item_emb.weight[1:]).tolist(),
        "mean_loss": loss.item(),
    }


def main() -> None:
    """Write the file."""
    rng = np.random.default_rng(0)
    users, items, weight = (rng.normal(size=(rows, DIM)).round(3) for rows in (NUM_USERS, NUM_ITEMS, DIM))
    with TemporaryDirectory() as directory:
        golden = {
            "made_by": f"RecBole {recbole.__version__}, torch {torch.__version__}",
            "pairs": PAIRS,
            "users": users.tolist(),
            "items": items.tolist(),
            "weight": weight.tolist(),
            "lightgcn": lightgcn(users, items, Path(directory) / "lightgcn"),
            "simplex": simplex(users, items, weight, Path(directory) / "simplex"),
        }
    TARGET.write_text(json.dumps(golden) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
