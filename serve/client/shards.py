"""Which shard of the users a call is for: `export/bundle/shard.py` once more, since the SDK may import nothing of ours.

A call for users of one shard carries its number as metadata, by which a proxy finds a server that has their rows
(`deploy/envoy/`). Whoever has a history instead of an id is answered by any server.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

SHARD_HEADER = "x-lowpass-shard"


def shard_of(user_id: str, shards: int) -> int:
    """The shard, from 0, of a user whose users are in `shards` of them."""
    digest = blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") * shards >> 64


def shards_of(subjects: Sequence[str | Sequence[str]], shards: int) -> list[int | None]:
    """The shard of each subject; None for a history, and where there is but one shard."""
    return [shard_of(one, shards) if shards > 1 and isinstance(one, str) else None for one in subjects]


def to_metadata(shard: int | None) -> tuple[tuple[str, str], ...]:
    """What a call to a shard carries; None goes to any."""
    return () if shard is None else ((SHARD_HEADER, str(shard)),)
