"""The engines that hold the items of models: opened once each, shared by all versions, checked at each load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from export.bundle import Bundle, EngineError
from export.bundle.engines import Engine, EngineAddress, collection_name, open_engine
from serve.answers.errors import WrongOptions
from serve.answers.indexes.breaker import Breaker
from serve.answers.indexes.engine_index import LOAD_SECONDS, EngineIndex
from serve.live.comparison import compare_index
from serve.telemetry.metrics import Metrics

ANY = ""


@dataclass(frozen=True)
class _Opened:
    address: EngineAddress
    engine: Engine
    breaker: Breaker


class Engines:
    """Which models ask an engine, and which.

    Args:
        given: `URL` for all models, or `MODEL=URL`.
        metrics: Where errors are counted.
        timeout: Longest time of a search, in seconds.
        connections: Searches at a time.

    Raises:
        WrongOptions: A model is given two.
        ExportError: One is no URL of an engine.
        EngineExtraMissing: A driver is not installed.
    """

    def __init__(self, given: Sequence[str], metrics: Metrics, *, timeout: float = 1.0, connections: int = 4) -> None:
        self._metrics = metrics
        self._timeout = timeout
        self._opened: dict[str, _Opened] = {}
        for text in given:
            model, url = _split(text)
            if model in self._opened:
                raise WrongOptions(f"--index: {model or 'every model'} is given two; leave one out")
            self._opened[model] = self._open(EngineAddress.parse(url), connections)

    def index_of(self, bundle: Bundle, model: str, users: npt.NDArray[np.float32]) -> EngineIndex | None:
        """The items of a bundle in its model's engine; the index is still to go live.

        Args:
            model: Name in the repository.
            users: Vectors of some of its users, to check the engine with, shape (n, d).

        Returns:
            None where the model asks no engine.

        Raises:
            EngineError: The engine does not answer, or does not hold this version whole.
            UnusableBundle: What it holds are not the bundle's items.
        """
        opened = self._opened.get(model) or self._opened.get(ANY)
        if opened is None:
            return None
        place, manifest = opened.address.place, bundle.manifest
        name = collection_name(opened.address.name, bundle.path.name, manifest.items_id)
        card = opened.engine.read_card(name, LOAD_SECONDS)
        which = f"--repository {bundle.path.parent.parent} --model {model}:{bundle.path.name}"
        remedy = f"load them: lowpass export {which} --to {place}"
        if card is None:
            raise EngineError("missing", f"{place}: holds no whole {name}, the items of {bundle.path}; {remedy}")
        if (card.items_id, card.items, card.dim) != (manifest.items_id, manifest.counts["items"], manifest.model.dim):
            raise EngineError("missing", f"{place}: {name} holds other items than {bundle.path}; {remedy}")
        items = np.asarray(bundle.item_embeddings)
        index = EngineIndex(
            opened.engine,
            place,
            name,
            card,
            items,
            timeout=self._timeout,
            breaker=opened.breaker,
            count=lambda reason: self._metrics.engines.count(place, reason),
            is_loading=True,
        )
        said: dict[str, Any] = {"ann_recall": card.recall, "k": card.recall_k, "said_by": "its card"}
        compare_index(index, items, users, f"{place}: {name}", remedy="load it again", **said)
        return index

    def close(self) -> None:
        """End all connections."""
        for opened in self._opened.values():
            opened.engine.close()

    def _open(self, address: EngineAddress, connections: int) -> _Opened:
        opened = _Opened(address, open_engine(address, connections), Breaker())
        self._metrics.engines.watch(address.place, lambda: float(opened.breaker.is_open))
        return opened


def _split(text: str) -> tuple[str, str]:
    """A model's name, empty for all, and a URL."""
    head, equals, tail = text.partition("=")
    return (head, tail) if equals and "://" not in head else (ANY, text)
