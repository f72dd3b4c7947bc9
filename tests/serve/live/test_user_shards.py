"""A server of one shard: its own users are answered, those of others are told where they are, fallback or not."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

import lowpass
from export.bundle import ShardedRepository, open_bundle, shard_of
from serve.client.answers import RecommendationList
from serve.client.errors import NotFoundByServer
from serve.client.recommender import RecommenderClient
from serve.process.options import ServerOptions
from serve.process.server import Server
from tests.serve.repositories import USERS, publish

SHARDS, HERE = 3, 1
EVERYBODY = [f"u{row}" for row in range(USERS)]
OWN = [user for user in EVERYBODY if shard_of(user, SHARDS) == HERE]
OTHERS = [user for user in EVERYBODY if shard_of(user, SHARDS) != HERE]
STRANGERS = {shard_of(user, SHARDS): user for user in map("nobody-{}".format, range(100))}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of "student" in shards, and one whole."""
    folder = tmp_path_factory.mktemp("shards")
    sharded = ShardedRepository(folder / "models", SHARDS)
    for seed in (1, 2):
        publish(folder, factory="Flat", seed=seed, repository=sharded)
    sharded.set_label("student", "stable", "1")
    publish(folder / "whole", factory="Flat", seed=1)
    return folder


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    options = ServerOptions(
        repository=root / "models" / f"shard-{HERE}-of-{SHARDS}",
        address="127.0.0.1:0",
        metrics_address="127.0.0.1:0",
        http_address="127.0.0.1:0",
        drain_wait=0.0,
    )
    running = Server(options)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def client(server: Server) -> Iterator[RecommenderClient]:
    with RecommenderClient(server.address, timeout=20.0) as made:
        yield made


def wrong_shards(server: Server) -> float:
    return server.metrics.registry.get_sample_value("lowpass_wrong_shard_total", {"model": "student"}) or 0.0


def test_its_own_users_are_answered_as_by_the_whole(client: RecommenderClient, root: Path) -> None:
    whole = open_bundle(root / "whole" / "student" / "1")
    for user in OWN:
        assert client.recommend(user, k=7).item_ids == tuple(item.item_id for item in whole.recommend(user, 7))


@pytest.mark.parametrize("fallback", [False, True])
def test_users_of_others_are_told_where_they_are(client: RecommenderClient, server: Server, *, fallback: bool) -> None:
    before = wrong_shards(server)
    for user in (*OTHERS[:5], *(name for shard, name in STRANGERS.items() if shard != HERE)):
        with pytest.raises(NotFoundByServer, match=f"'{user}' is in shard {shard_of(user, SHARDS)} of 3") as caught:
            client.recommend(user, allow_fallback=fallback)
        info = caught.value.details["ErrorInfo"]
        assert info.reason == "WRONG_SHARD"
        assert info.metadata == {"model": "student", "shard": str(shard_of(user, SHARDS)), "shards": "3"}
    assert wrong_shards(server) == before + 7


def test_a_stranger_of_its_own_range_is_unknown_as_ever(client: RecommenderClient) -> None:
    with pytest.raises(NotFoundByServer, match="set allow_fallback") as caught:
        client.recommend(STRANGERS[HERE])
    assert caught.value.reason == "UNKNOWN_USER"
    assert client.recommend(STRANGERS[HERE], allow_fallback=True).source == "popular"


def test_a_batch_fails_by_the_entry(client: RecommenderClient, server: Server) -> None:
    before = wrong_shards(server)
    subjects = [OWN[0], OTHERS[0], ["i1"], OTHERS[1]]
    for found in (client.batch_recommend(subjects), list(client.stream_recommend(subjects))):
        kinds = [type(answer) for answer in found]
        assert kinds == [RecommendationList, NotFoundByServer, RecommendationList, NotFoundByServer]
    assert wrong_shards(server) == before + 4


def test_anybody_else_is_answered(client: RecommenderClient) -> None:
    assert client.recommend(history=["i1", "i2"], k=5).source == "fold_in"
    assert client.recommend(history=[], allow_fallback=True).source == "popular"
    assert len(client.similar_items("i1", k=5)) == 5


def test_info_says_which_shard_it_is(client: RecommenderClient) -> None:
    (model,) = client.info().models
    assert (model.user_shard, model.user_shards, model.users) == (HERE, SHARDS, len(OWN))


def test_the_gateway_says_so_too(server: Server) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://{server.http_address}/v1/recommend?user_id={OTHERS[0]}", timeout=20)
    assert caught.value.code == 404
    details = json.loads(caught.value.read())["error"]["details"]
    assert details[0]["metadata"]["shard"] == str(shard_of(OTHERS[0], SHARDS))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert lowpass.main(list(words)) == 0
    return capsys.readouterr().out


def test_the_shell_asks_and_lists(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    target = ("--target", server.address)
    assert OWN[0] not in run(capsys, "query", *target, "--user", OWN[0], "--user-shards", str(SHARDS))
    assert f"{len(OWN)} (shard 1 of 3)" in run(capsys, "query", *target, "--info")


def test_labels_of_all_shards_are_listed_and_moved(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--repository", str(root / "models"))
    lines = [line.split() for line in run(capsys, "models", "list", *where).splitlines()]
    assert lines[0] == ["model", "labels", "users"]
    assert lines[1:3] == [["student:1", "stable", "shard-0-of-3"], ["student:2", "shard-0-of-3"]]
    assert len(lines) == 7
    moved = json.loads(run(capsys, "models", "label", "student", "stable", "2", *where, "--json"))["versions"]
    assert [row["version"] for row in moved if "stable" in row["labels"]] == ["2"] * SHARDS
    back = json.loads(run(capsys, "models", "rollback", "student", *where, "--json"))["versions"]
    assert {row["shard"] for row in back if row["version"] == "1" and "stable" in row["labels"]} == {
        f"shard-{number}-of-3" for number in range(SHARDS)
    }
    assert len(run(capsys, "models", "verify", "student", *where).splitlines()) == 2 * SHARDS


def test_whoever_gives_all_shards_to_a_server_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = lowpass.main(["models", "show", "student", "--repository", str(root / "models")])
    assert code == 2
    assert "no model 'student', but in shard-0-of-3, shard-1-of-3, shard-2-of-3" in capsys.readouterr().err
    assert lowpass.main(["serve", "--repository", str(root / "models"), "--address", "127.0.0.1:0"]) == 2
    assert f"but shards of users: give one, e.g. {root / 'models' / 'shard-0-of-3'}" in capsys.readouterr().err
