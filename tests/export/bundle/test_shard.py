from __future__ import annotations

from collections import Counter

import pytest

from export.bundle.shard import UserShard, shard_of
from serve.client import shards as of_client

IDS = [f"u{number}" for number in range(4000)] + ["", "çağ", "🙂", "x" * 9000, "half \ud800"]


def test_the_shard_of_an_id_never_changes() -> None:
    assert [shard_of(user_id, 4) for user_id in ("u0", "u1", "u2", "u3", "çağ", "")] == [3, 3, 2, 0, 0, 2]


@pytest.mark.parametrize("shards", [2, 3, 4, 7, 4096])
def test_the_client_has_the_same_rule(shards: int) -> None:
    assert [of_client.shard_of(user_id, shards) for user_id in IDS] == [shard_of(user_id, shards) for user_id in IDS]


@pytest.mark.parametrize("shards", [1, 2, 3, 64])
def test_twice_as_many_split_each_in_two(shards: int) -> None:
    assert all(shard_of(user_id, 2 * shards) // 2 == shard_of(user_id, shards) for user_id in IDS)


def test_users_spread_evenly() -> None:
    sizes = Counter(shard_of(user_id, 8) for user_id in IDS)
    assert set(sizes) == set(range(8))
    assert max(sizes.values()) < 1.25 * min(sizes.values())


def test_a_shard_knows_its_own_users() -> None:
    assert UserShard(2, 4).home_of("u1") == 3
    assert (UserShard(2, 4).folder, str(UserShard(2, 4))) == ("shard-2-of-4", "shard 2 of 4")
