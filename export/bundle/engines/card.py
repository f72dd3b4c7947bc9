"""What an engine says of a version's items: JSON beside them, written when all else is done."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from export.bundle.errors import EngineError
from export.bundle.manifest import SEARCH_PARAMETERS

KINDS = {
    "milvus": ("ivf_flat", "flat", "ivf_sq8", "hnsw"),
    "pgvector": ("hnsw", "flat", "ivf_flat", "hnsw_half"),
}
"""Indexes of an engine, the default one first."""
APPROXIMATE = ("ivf_sq8", "hnsw_half")
"""Indexes whose scores are not the inner products: what they find is scored anew with the bundle's own vectors."""
FORMAT = 1
_WORDS = {"nprobe": "nprobe", "ef": "efSearch", "k_factor": "k_factor"}
"""Search parameters, and under which name `manifest.json` bounds each."""


@dataclass(frozen=True)
class Card:
    """How a collection is asked, and what it was measured to find.

    Args:
        items_id: Of the manifest whose items it holds.
        items: How many.
        dim: Length of a vector.
        kind: Of the index, one of `KINDS`.
        recall: Share of the exact top `recall_k` that it finds.
        recall_k: Length of those lists.
        bytes_per_item: That it takes in the engine; 0 where the engine does not say.
        search: How it is asked: `nprobe` lists or `ef` candidates, and `k_factor` times more where scores are
            approximate.
    """

    items_id: str
    items: int
    dim: int
    kind: str
    recall: float
    recall_k: int
    bytes_per_item: float = 0.0
    search: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line."""
        return json.dumps({"lowpass": FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str) -> Card:
        """Read what `to_json` wrote.

        Args:
            where: The collection, for the error.

        Raises:
            EngineError: It is something else.
        """
        try:
            content = json.loads(text)
            if content.pop("lowpass") != FORMAT:
                raise ValueError("another format")
            card = cls(**content)
            numbers = (card.items, card.dim, card.recall_k, card.recall, card.bytes_per_item)
            is_sound = (
                all(isinstance(number, int | float) and number >= 0 for number in numbers)
                and isinstance(card.items_id, str)
                and any(card.kind in kinds for kinds in KINDS.values())
                and set(card.search) <= set(_WORDS)
                and all(
                    type(value) is int and 0 < value <= SEARCH_PARAMETERS[_WORDS[name]]
                    for name, value in card.search.items()
                )
            )
        except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise EngineError("missing", f"{where}: its card is unreadable ({error}): load it again") from error
        if not is_sound:
            raise EngineError("missing", f"{where}: its card holds what none may: load it again")
        return card
