from __future__ import annotations

import dataclasses
import socket
import time
from collections.abc import Iterator

import pytest

from serve.answers.errors import Overloaded
from serve.answers.limits import Limits
from serve.client.answers import Item, RecommendationList
from serve.client.errors import (
    InvalidQuery,
    NotFoundByServer,
    RecommenderError,
    ServerBusy,
    ServerUnavailable,
    TimeUp,
    error_from_status,
)
from serve.client.recommender import RecommenderClient
from serve.process.options import ServerOptions
from serve.process.server import Server
from serve.rpc.status import to_status


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    options = ServerOptions(
        address="127.0.0.1:0", metrics_address="127.0.0.1:0", drain_wait=0.0, limits=Limits(max_batch=4)
    )
    running = Server(options)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def client(server: Server) -> Iterator[RecommenderClient]:
    with RecommenderClient(server.address, timeout=10.0) as made:
        yield made


def test_recommends_with_titles(client: RecommenderClient) -> None:
    answer = client.recommend("user-3", k=3, include_titles=True, exclude=["item-4"])
    assert next(iter(answer)) == Item("item-3", answer.scores[0], "Title-3")
    assert answer.scores[0] == pytest.approx(1.0, abs=1e-3)
    assert (answer.item_ids, len(answer)) == (("item-3", "item-2", "item-5"), 3)
    assert (answer.model, answer.version, answer.source, answer.shortfall) == ("fake", "1", "personal", "")
    assert set(answer.timings_us) == {"queue", "encode", "search", "filter", "total"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.model = "other"  # type: ignore[misc]  # that it cannot be set is the test


def test_pages_without_a_gap(client: RecommenderClient) -> None:
    whole = client.recommend("user-3", k=30).item_ids
    pages = [client.recommend("user-3", k=10, offset=offset).item_ids for offset in (0, 10, 20)]
    assert sum(pages, ()) == whole


def test_a_batch_has_an_outcome_each(client: RecommenderClient) -> None:
    outcomes = client.batch_recommend(["user-1", "nobody", ["item-7"], []], k=2, model="fake:stable")
    assert [type(outcome) for outcome in outcomes] == [
        RecommendationList,
        NotFoundByServer,
        RecommendationList,
        NotFoundByServer,
    ]
    first, unknown, folded, empty = outcomes
    assert isinstance(first, RecommendationList)
    assert isinstance(folded, RecommendationList)
    assert (first.item_ids[0], folded.item_ids) == ("item-1", ("item-6", "item-8"))
    assert isinstance(unknown, NotFoundByServer)
    assert (unknown.resource_type, unknown.resource_name) == ("user", "nobody")
    assert isinstance(empty, RecommenderError)
    assert empty.reason == "UNKNOWN_HISTORY"


def test_a_stream_has_an_outcome_each_in_order(client: RecommenderClient) -> None:
    subjects = [f"user-{number % 8}" for number in range(150)]
    subjects[100] = "nobody"
    found = list(client.stream_recommend(subjects, k=1))
    assert len(found) == 150
    assert isinstance(found[100], NotFoundByServer)
    firsts = [each.item_ids[0] for each in found if isinstance(each, RecommendationList)]
    assert firsts == [f"item-{user[5:]}" for user in subjects if user != "nobody"]


def test_a_stream_that_is_not_wanted_any_more_frees_its_thread(client: RecommenderClient, server: Server) -> None:
    for _ in range(10):
        stream = client.stream_recommend(["user-1"] * 5000, k=50)
        next(stream)
        stream.close()
        give_up = time.monotonic() + 10
        while server.admission.in_flight and time.monotonic() < give_up:
            time.sleep(0.005)
    assert server.admission.in_flight == 0


def test_a_stream_as_a_whole_may_be_refused(client: RecommenderClient) -> None:
    with pytest.raises(InvalidQuery, match="send between 1 and"):
        next(client.stream_recommend([]))


def test_a_batch_of_models_answers_each(client: RecommenderClient) -> None:
    outcomes = client.batch_recommend(["user-1"], model="other")
    assert isinstance(outcomes[0], NotFoundByServer)
    assert outcomes[0].resource_type == "model"


@pytest.mark.parametrize("size", [0, 5])
def test_a_batch_of_a_wrong_size_fails_whole(client: RecommenderClient, size: int) -> None:
    with pytest.raises(InvalidQuery) as caught:
        client.batch_recommend(["user-1"] * size)
    assert list(caught.value.violations) == ["requests"]


def test_wrong_fields_come_back_by_name(client: RecommenderClient) -> None:
    with pytest.raises(InvalidQuery, match="INVALID_ARGUMENT") as caught:
        client.recommend("user-1", k=5000, offset=1_000_000)
    assert list(caught.value.violations) == ["k", "offset"]
    assert (caught.value.exit_code, caught.value.code) == (2, "INVALID_ARGUMENT")


def test_selects_versions_and_labels(client: RecommenderClient) -> None:
    assert client.recommend("user-1", model="fake:1").version == "1"
    with pytest.raises(NotFoundByServer) as caught:
        client.recommend("user-1", model="fake:canary")
    assert (caught.value.resource_type, caught.value.resource_name) == ("label", "canary")
    with pytest.raises(NotFoundByServer) as caught:
        client.similar_items("item-1", model="fake:2")
    assert caught.value.resource_type == "version"


def test_similar_items(client: RecommenderClient) -> None:
    answer = client.similar_items("item-9", k=2, allow_categories=["odd"])
    assert (set(answer.item_ids), answer.source) == ({"item-7", "item-11"}, "similar")


def test_info_tells_models_and_limits(client: RecommenderClient) -> None:
    info = client.info()
    assert [(model.name, model.index, model.has_fold_in) for model in info.models] == [("fake", "Flat", True)]
    assert info.limits["max_batch"] == 4
    assert info.models[0].quality == {"recall@20": 1.0, "ndcg@20": 1.0}


def test_nobody_there_is_unavailable_after_retries() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with RecommenderClient(address, timeout=5.0) as client:
        with pytest.raises(ServerUnavailable):
            client.info()
        with pytest.raises(ServerUnavailable, match="no connection"):
            client.wait_ready(0.1)


def test_calls_end_by_their_deadline() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with RecommenderClient(f"127.0.0.1:{silent.getsockname()[1]}", timeout=0.3) as client:
            started = time.monotonic()
            with pytest.raises(TimeUp):
                client.info()
            assert time.monotonic() - started < 2.0


def test_retries_while_the_server_is_not_ready() -> None:
    options = ServerOptions(address="127.0.0.1:0", metrics_address="127.0.0.1:0", drain_wait=0.0)
    server = Server(options)
    address = server._transport.bind("127.0.0.1:0")
    server._transport.start()
    with RecommenderClient(address, timeout=5.0) as client:
        with pytest.raises(ServerUnavailable):
            client.info()
        assert server.metrics.handled()["UNAVAILABLE"] > 1
    server._transport.stop(1.0)


def test_a_busy_server_says_when_to_return() -> None:
    error = error_from_status(to_status(Overloaded(0.25)))
    assert isinstance(error, ServerBusy)
    assert (error.retry_after, error.reason) == (0.25, "OVERLOADED")


def test_waits_for_a_server(client: RecommenderClient) -> None:
    client.wait_ready(10.0)
    assert client.info().models
