"""Which arm of a split answers whom: by a hash of who asks, so that the same user always meets the same arm."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from serve.answers.errors import FieldViolation, InvalidRequest

POINTS = 1 << 32


@dataclass(frozen=True)
class Split:
    """Shares of the requests that name neither version nor label; what is left goes to the default version.

    Args:
        shares: Label → share in (0, 1]; they sum to 1 at most.

    Raises:
        InvalidRequest: A share is out of range, or they sum to more than 1.
    """

    shares: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label, share in self.shares.items():
            if not 0 < share <= 1:
                raise InvalidRequest(FieldViolation("shares", f"{label} has {share:g}; give more than 0, at most 1"))
        if sum(self.shares.values()) > 1 + 1e-9:
            raise InvalidRequest(FieldViolation("shares", f"sum to {sum(self.shares.values()):g}; give at most 1"))

    def __bool__(self) -> bool:
        return bool(self.shares)

    def arm(self, key: str) -> str | None:
        """The label whose share `key` falls into, or None for the default version."""
        # Not the hash that says a user's shard (8 bytes, `export.bundle.shard`): its arms are spread over all shards.
        digest = hashlib.blake2b(key.encode(), digest_size=4).digest()
        point = int.from_bytes(digest, "big") / POINTS
        for label, share in self.shares.items():
            point -= share
            if point < 0:
                return label
        return None
