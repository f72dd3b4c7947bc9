"""The items of a bundle in a retrieval engine: where they are, what is said of them, how they are asked for.

This is the contract between `lowpass export --to`, which loads a version's items, and `lowpass serve --index`, which
asks for them. A version has a collection (Milvus) or a table (PostgreSQL) of its own: a column `id`, the item's row
number, and a column `embedding`. Its name holds a digest of the items, which all shards of users share, so that server
and engine never disagree on what is asked. A `Card` says how it is asked; it is written last, so that what is half
loaded has none and is never seen.

    milvus://HOST:PORT/[DATABASE/]NAME       pip install 'lowpass[milvus]'
    postgresql://HOST:PORT/DATABASE/NAME     pip install 'lowpass[pgvector]'
"""

from __future__ import annotations

from export.bundle.engines.address import EngineAddress, collection_name
from export.bundle.engines.card import KINDS, Card
from export.bundle.engines.engine import Engine
from export.bundle.engines.opening import open_engine

__all__ = ["KINDS", "Card", "Engine", "EngineAddress", "collection_name", "open_engine"]
