"""Items in a real engine, as the server asks for them."""

from __future__ import annotations

from contextlib import closing
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from export.build import engine_load
from export.bundle.engines import Card, EngineAddress, open_engine
from serve.answers.indexes.engine_index import EngineIndex
from tests.kits.engines import Proxy

_NUMBERS = count()


def load_items(proxy: Proxy, items: npt.NDArray[np.float32], kind: str, **settings: Any) -> EngineIndex:
    """Load vectors into a collection of their own; returns the index over it.

    Args:
        proxy: The way to it; it closes what asks by it.
        settings: Of the index.
    """
    address = EngineAddress.parse(proxy.url())
    name = f"kit_{next(_NUMBERS)}"
    engine = open_engine(address)
    proxy.engines.append(engine)
    with closing(engine_load._open_writer(address)) as writer:
        writer.create(name, items.shape[1], kind)
        writer.insert(name, 0, items)
        lists = max(1, len(items) // 39)
        writer.build(name, kind, lists)
        empty = Card("kit", len(items), items.shape[1], kind, 0.0, min(20, len(items)))
        users = np.random.default_rng(11).normal(size=(30, items.shape[1])).astype(np.float32)
        ladder = engine_load.rungs(kind, lists)
        card = engine_load.choose_search(engine, name, empty, items, users, ladder, 0.9, address.place)
        writer.write_card(name, card)
    found = engine.read_card(name, 10.0)
    assert found == card
    return EngineIndex(engine, address.place, name, found, items, **settings)
