"""Which users a bundle has, where they are spread over several: equal ranges of a hash of the id, and nothing else.

With shards numbered from 0, shard k of N becomes shards 2k and 2k + 1 of 2N: twice as many halve what each server has,
and move no user between those that were apart. The SDK has the same rule once more (`serve/client/shards.py`), because
it may import nothing of ours; a test holds them together.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

MAXIMUM_SHARDS = 4096
"""Far more than one would want servers for; with it no shard of a million users is empty."""


def digest_id(encoded: bytes) -> bytes:
    """The 64-bit BLAKE2b digest of an id's UTF-8 bytes."""
    return blake2b(encoded, digest_size=8).digest()


def hash_id(encoded: bytes) -> int:
    """That digest as a little-endian number: its low bits lead id tables, its high ones choose the shard."""
    return int.from_bytes(digest_id(encoded), "little")


def shard_of(user_id: str, shards: int) -> int:
    """The shard, from 0, of a user whose users are in `shards` of them."""
    return hash_id(user_id.encode("utf-8", "surrogatepass")) * shards >> 64


@dataclass(frozen=True)
class UserShard:
    """One of `of` shards.

    Attributes:
        shard: Its number, from 0.
        of: How many there are, at least 2.
    """

    shard: int
    of: int

    @property
    def folder(self) -> str:
        """The folder of its bundles in a repository."""
        return f"shard-{self.shard}-of-{self.of}"

    def __str__(self) -> str:
        return f"shard {self.shard} of {self.of}"

    def home_of(self, user_id: str) -> int:
        """The shard a user is in: this one's number for its own users."""
        return shard_of(user_id, self.of)
