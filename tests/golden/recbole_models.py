"""RecBole's own models on given interactions: run by an interpreter that has RecBole, never by ours.

RecBole 1.2.1 imports beside numpy < 2, pandas < 2.3, scipy < 1.13 and setuptools < 81, so it needs an environment of
its own: `pip install recbole==1.2.1 "numpy<2" "pandas<2.3" "scipy<1.13" "setuptools<81" torch==2.13.0`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed

NAME = "given"


def open_model(model: str, pairs: Iterable[tuple[int, int]], directory: Path, **settings: Any) -> tuple[Any, Any, Any]:
    """Train interactions in, RecBole's configuration, training batches and model out.

    RecBole numbers users and items in the order in which they first appear, from 1; row 0 is padding.

    Args:
        model: "BPR", "LightGCN", "SimpleX", …
        pairs: (user, item).
        directory: Where the atomic file may be written.
        **settings: Of RecBole.
    """
    source = directory / NAME
    source.mkdir(parents=True)
    lines = ["user_id:token\titem_id:token", *(f"{user}\t{item}" for user, item in pairs)]
    (source / f"{NAME}.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")
    given = {
        "data_path": str(directory),
        "load_col": {"inter": ["user_id", "item_id"]},
        "eval_args": {"split": {"RS": [1.0, 0.0, 0.0]}, "group_by": "user", "order": "RO", "mode": "full"},
        "use_gpu": False,
        "state": "ERROR",
        "seed": 0,
        **settings,
    }
    config = Config(model=model, dataset=NAME, config_dict=given)
    init_seed(config["seed"], reproducibility=True)
    batches, _, _ = data_preparation(config, create_dataset(config))
    return config, batches, get_model(model)(config, batches._dataset)
