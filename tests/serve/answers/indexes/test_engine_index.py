"""The index kit against real engines, and what a search does when one is slow, wrong or gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any

import numpy as np
import pytest

from export.bundle import EngineError, ExactIndex
from export.bundle.engines import Card
from serve.answers.admission import Deadline
from serve.answers.errors import DeadlineExpired, IndexUnavailable
from serve.answers.indexes.breaker import Breaker
from serve.answers.indexes.engine_index import AT_ONCE, LOAD_SECONDS, EngineIndex
from tests.kits.engines import MilvusServer, PostgresServer, Proxy, Server
from tests.kits.index_kit import IndexKit, Search
from tests.kits.loading import load_items

FAR = 30.0


class EngineKit(IndexKit):
    kind = "flat"

    @pytest.fixture(autouse=True)
    def _engine(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.proxy = Proxy(self.server(request))
        yield
        self.proxy.close()

    def server(self, request: pytest.FixtureRequest) -> Server:
        raise NotImplementedError

    def build(self, items: Any) -> Search:
        return load_items(self.proxy, items, self.kind, timeout=FAR).search


class OnMilvus(EngineKit):
    def server(self, request: pytest.FixtureRequest) -> Server:
        found: MilvusServer = request.getfixturevalue("milvus")
        found.start()
        return found


class OnPgvector(EngineKit):
    def server(self, request: pytest.FixtureRequest) -> Server:
        found: PostgresServer = request.getfixturevalue("postgres")
        found.start()
        return found


class TestMilvusFlat(OnMilvus):
    pass


class TestMilvusLists(OnMilvus):
    kind = "ivf_flat"
    minimum_recall = 0.9


class TestPgvectorScan(OnPgvector):
    pass


class TestPgvectorGraph(OnPgvector):
    kind = "hnsw"
    minimum_recall = 0.9


class TestPgvectorLists(OnPgvector):
    kind = "ivf_flat"
    minimum_recall = 0.9


class TestPgvectorGraphOfHalves(OnPgvector):
    kind = "hnsw_half"
    minimum_recall = 0.9


del IndexKit, EngineKit, OnMilvus, OnPgvector  # else they are collected as tests of their own


def vectors(count: int, dim: int = 8, seed: int = 3) -> Any:
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)


def test_threads_share_an_engine(engine_server: Server, proxy: Proxy) -> None:
    items, queries = vectors(500), vectors(64, seed=4)
    index = load_items(proxy, items, "flat", timeout=FAR)
    expected = ExactIndex(items).search(queries, 7)[1]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: index.search(queries[row : row + 1], 7)[1][0], list(range(64)) * 4))
    np.testing.assert_array_equal(found, np.tile(expected, (4, 1)))


def test_as_many_as_the_engine_gives_at_once(engine_server: Server, proxy: Proxy) -> None:
    items = vectors(1200, dim=4)
    index = load_items(proxy, items, "flat", timeout=FAR)
    k = min(index.most, 1200)
    _, rows = index.search(vectors(2, dim=4, seed=5), k)
    assert [len(set(row)) for row in rows.tolist()] == [k, k]


def test_a_slow_engine_keeps_the_deadline_and_is_used_again(engine_server: Server, proxy: Proxy) -> None:
    items, query = vectors(300), vectors(1, seed=4)
    counted: list[str] = []
    index = load_items(proxy, items, "flat", timeout=FAR, count=counted.append)
    expected = index.search(query, 5)[1]
    proxy.delay = 3.0
    started = monotonic()
    with pytest.raises(DeadlineExpired, match=r"did not answer within the \d+ ms that were left"):
        index.until(Deadline(monotonic() + 0.3)).search(query, 5)
    assert 0.25 < monotonic() - started < 2.0
    assert counted == ["timeout"]
    proxy.delay = 0.0
    np.testing.assert_array_equal(index.until(Deadline(monotonic() + FAR)).search(query, 5)[1], expected)


def test_an_engine_that_is_gone_opens_the_breaker_and_closes_it_when_it_is_back(
    engine_server: Server, proxy: Proxy
) -> None:
    items, query = vectors(300), vectors(1, seed=4)
    counted: list[str] = []
    breaker = Breaker(failures=3, pause=0.3)
    index = load_items(proxy, items, "flat", timeout=1.0, breaker=breaker, count=counted.append)
    expected = index.search(query, 5)[1]
    proxy.cut()
    for _ in range(3):
        with pytest.raises(IndexUnavailable):
            index.search(query, 5)
    assert breaker.is_open
    started = monotonic()
    with pytest.raises(IndexUnavailable, match="left alone for a moment: try again in") as refused:
        index.search(query, 5)
    assert monotonic() - started < 0.1
    assert 0 < refused.value.retry_after <= 0.3
    assert set(counted[:3]) <= {"unreachable", "timeout"}
    assert counted[3] == "breaker_open"
    proxy.mend()
    np.testing.assert_array_equal(patiently(lambda: index.search(query, 5)[1]), expected)
    assert not breaker.is_open


def test_an_engine_that_was_killed_is_used_again_when_it_is_back(engine_server: Server, proxy: Proxy) -> None:
    items, query = vectors(300), vectors(1, seed=4)
    index = load_items(proxy, items, "flat", timeout=1.0, breaker=Breaker(5, 0.2))
    with ThreadPoolExecutor(4) as pool:  # so that several connections are there to be found dead
        list(pool.map(lambda _: index.search(query, 5), range(16)))
    expected = index.search(query, 5)[1]
    engine_server.kill()
    started = monotonic()
    with pytest.raises(IndexUnavailable):
        index.search(query, 5)
    assert monotonic() - started < 3.0
    engine_server.start()
    np.testing.assert_array_equal(patiently(lambda: index.search(query, 5)[1]), expected)
    # From then on nothing is lost: no dead connection is left to fail a search.
    for _ in range(20):
        np.testing.assert_array_equal(index.search(query, 5)[1], expected)


def test_a_collection_that_is_dropped_is_named_and_does_not_open_the_breaker(
    engine_server: Server, proxy: Proxy
) -> None:
    counted: list[str] = []
    breaker = Breaker(failures=2)
    index = load_items(proxy, vectors(50), "flat", timeout=FAR, breaker=breaker)
    other = EngineIndex(
        index._engine, "engine", "not_there", index.card, vectors(50), breaker=breaker, count=counted.append
    )
    for _ in range(3):
        with pytest.raises(IndexUnavailable, match="not_there"):
            other.search(vectors(1), 3)
    assert counted == ["missing"] * 3
    assert not breaker.is_open


def patiently(ask: Callable[[], Any], seconds: float = 60.0) -> Any:
    end = monotonic() + seconds
    while True:
        try:
            return ask()
        except IndexUnavailable:
            assert monotonic() < end
            time.sleep(0.05)


class Scripted:
    """An engine that does what it is told.

    Args:
        answer: Called with the vectors, k and the seconds.
    """

    most = 1000

    def __init__(self, answer: Callable[[Any, int, float], Any]) -> None:
        self._answer = answer
        self.asked: list[tuple[int, int, float]] = []

    def search(self, name: str, vectors: Any, k: int, card: Card, seconds: float) -> Any:
        self.asked.append((len(vectors), k, seconds))
        return self._answer(vectors, k, seconds)

    def read_card(self, name: str, seconds: float) -> Card | None:
        return None

    def close(self) -> None:
        pass


def scripted(answer: Callable[[Any, int, float], Any], **settings: Any) -> tuple[EngineIndex, Scripted]:
    engine = Scripted(answer)
    search = settings.pop("search", {})
    card = Card("id", 300, 8, "flat", 1.0, 20, search=search)
    return EngineIndex(engine, "engine", "items", card, vectors(300), **settings), engine


def first_rows(asked: Any, k: int, _seconds: float) -> Any:
    return np.zeros((len(asked), k), np.float32), np.tile(np.arange(k), (len(asked), 1))


def test_many_vectors_go_in_parts_that_each_have_the_time() -> None:
    index, engine = scripted(first_rows, timeout=2.0)
    scores, rows = index.search(vectors(2 * AT_ONCE + 3), 4)
    assert [(count, k, seconds) for count, k, seconds in engine.asked] == [
        (AT_ONCE, 4, 2.0),
        (AT_ONCE, 4, 2.0),
        (3, 4, 2.0),
    ]
    assert scores.shape == rows.shape == (2 * AT_ONCE + 3, 4)


def test_what_is_scored_approximately_is_scored_anew() -> None:
    index, engine = scripted(first_rows, search={"k_factor": 3})
    items, query = vectors(300), vectors(1, seed=9)
    scores, rows = index.search(query, 4)
    assert engine.asked[0][:2] == (1, 12)
    expected = np.argsort(-(items[:12] @ query[0]))[:4]
    np.testing.assert_array_equal(rows[0], expected)
    np.testing.assert_allclose(scores[0], (items @ query[0])[expected], rtol=1e-5)
    assert index.most == 333


@pytest.mark.parametrize("row", [300, -2])
def test_a_row_that_is_no_items_is_refused(row: int) -> None:
    counted: list[str] = []
    index, _ = scripted(lambda _v, k, _s: (np.zeros((1, k)), np.full((1, k), row)), count=counted.append)
    with pytest.raises(IndexUnavailable, match="rows beyond its 300 items"):
        index.search(vectors(1), 3)
    assert counted == ["failed"]


def test_a_caller_without_time_is_not_asked_for() -> None:
    index, engine = scripted(first_rows)
    with pytest.raises(DeadlineExpired):
        index.until(Deadline(monotonic() - 1)).search(vectors(1), 3)
    assert engine.asked == []


def test_callers_in_a_hurry_do_not_open_the_breaker_but_the_patient_do() -> None:
    def late(*_: Any) -> Any:
        raise EngineError("timeout", "engine: no answer")

    breaker = Breaker(failures=2)
    index, _ = scripted(late, timeout=10.0, breaker=breaker)
    for _ in range(5):
        with pytest.raises(DeadlineExpired):
            index.until(Deadline(monotonic() + 0.5)).search(vectors(1), 3)
    assert not breaker.is_open
    for _ in range(2):
        with pytest.raises(DeadlineExpired):
            index.until(Deadline(monotonic() + 5)).search(vectors(1), 3)
    assert breaker.is_open


def test_a_defect_in_the_one_try_leaves_the_next_one_free() -> None:
    broken = threading.Event()

    def answer(asked: Any, k: int, seconds: float) -> Any:
        if broken.is_set():
            broken.clear()
            raise ZeroDivisionError
        raise EngineError("unreachable", "engine: gone")

    breaker = Breaker(failures=1, pause=0.0)
    index, _ = scripted(answer, breaker=breaker)
    with pytest.raises(IndexUnavailable):
        index.search(vectors(1), 3)
    broken.set()
    with pytest.raises(ZeroDivisionError):
        index.search(vectors(1), 3)
    assert breaker.enter() == 0


def test_what_fails_while_a_model_is_loaded_is_not_held_against_the_engine() -> None:
    def gone(*_: Any) -> Any:
        raise EngineError("unreachable", "engine: gone")

    counted: list[str] = []
    breaker = Breaker(failures=1)
    index, engine = scripted(gone, timeout=0.5, breaker=breaker, count=counted.append, is_loading=True)
    with pytest.raises(IndexUnavailable):
        index.search(vectors(1), 3)
    assert (engine.asked[0][2], breaker.is_open, counted) == (LOAD_SECONDS, False, [])
    index.go_live()
    with pytest.raises(IndexUnavailable):
        index.search(vectors(1), 3)
    assert (engine.asked[1][2], breaker.is_open, counted) == (0.5, True, ["unreachable"])
