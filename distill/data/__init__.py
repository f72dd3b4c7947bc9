"""Interaction data: read a source, filter and split it, store it, load it again. Nothing here needs torch.

data = prepare_source(Path("ratings.csv"), PrepareOptions(rating_minimum=4, split="temporal"), name="mine")
save_interactions(data, Path("data/mine"))
"""

from __future__ import annotations

from distill.data.interactions import (
    Interactions,
    build_user_items,
    describe,
    format_description,
    load_interactions,
    save_interactions,
)
from distill.data.prepare import PrepareOptions, prepare_source
from distill.data.public_sets import CATALOG, fetch
from distill.data.raw_table import RawTable
from distill.data.readers import READERS, ColumnNames, read_table

__all__ = [
    "CATALOG",
    "READERS",
    "ColumnNames",
    "Interactions",
    "PrepareOptions",
    "RawTable",
    "build_user_items",
    "describe",
    "fetch",
    "format_description",
    "load_interactions",
    "prepare_source",
    "read_table",
    "save_interactions",
]
