"""Models whose items are in an engine: what is checked at load, and what answers then."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from export.build import engine_load
from export.build.engine_load import load_version
from export.bundle import EngineError, ExportError, ModelRepository, ShardedRepository, open_bundle, shard_of
from export.bundle.engines import EngineAddress
from serve.answers.errors import UnusableBundle, WrongOptions
from serve.answers.types import Query
from serve.live.engines import Engines
from serve.live.loader import load_model
from serve.telemetry.metrics import Metrics
from tests.kits.engines import PostgresServer, Proxy, Server
from tests.serve.repositories import USERS, publish, two_versions


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    return two_versions(tmp_path_factory.mktemp("stored"))


def engines(*given: str) -> Engines:
    return Engines(given, Metrics(CollectorRegistry()), timeout=30.0)


def test_a_model_in_an_engine_answers_as_from_its_own_index(
    stored: ModelRepository, engine_server: Server, proxy: Proxy
) -> None:
    url = proxy.url("answers")
    path = stored.resolve("student", "1")
    load_version(stored, open_bundle(path), EngineAddress.parse(url), kind="flat")
    own = load_model("student", path)
    with closing(engines(f"student={url}")) as found:
        model = load_model("student", path, engines=found)
        assert (model.summary.index.factory, model.summary.index.ann_recall) == ("flat", 1.0)
        queries = [
            *(Query(f"u{row}", k=10) for row in range(60)),
            Query("u1", k=5, offset=7, exclude_item_ids=[f"i{row}" for row in range(100)]),
            Query("u2", k=5, include_seen=True),
            Query("u3", k=400),
            Query("u4", k=5, exact=True),
            Query("u5", k=5, allow_item_ids=["i1", "i2", "i3"]),
            Query(history=["i1", "i2"], k=5),
            Query("u6", k=5, diversity=0.5),
            Query("nobody", k=5, allow_fallback=True),
        ]
        for asked in (queries, queries[:1]):
            for there, here in zip(
                model.recommender.recommend(asked).outcomes, own.recommender.recommend(asked).outcomes, strict=True
            ):
                assert not isinstance(there, Exception)
                assert not isinstance(here, Exception)
                assert there.item_ids == here.item_ids
                np.testing.assert_allclose(there.scores, here.scores, rtol=1e-4, atol=1e-5)
                assert (there.source, there.shortfall) == (here.source, here.shortfall)


def test_servers_of_all_shards_of_users_ask_one_collection(tmp_path: Path, postgres: PostgresServer) -> None:
    proxy, sharded = Proxy(postgres), ShardedRepository(tmp_path, 3)
    publish(tmp_path, factory="Flat", repository=sharded)
    url = proxy.url("shared")
    bundles = [open_bundle(repository.resolve("student", "1")) for repository in sharded.shards]
    first, *others = (
        load_version(repository, bundle, EngineAddress.parse(url), kind="flat")
        for repository, bundle in zip(sharded.shards, bundles, strict=True)
    )
    assert first.seconds > 0
    assert {loaded.collection for loaded in others} == {first.collection}
    assert [loaded.seconds for loaded in others] == [0, 0], "the first one's items are there already"
    for number, bundle in enumerate(bundles):
        queries = [Query(f"u{row}", k=10) for row in range(USERS) if shard_of(f"u{row}", 3) == number]
        assert queries
        own = load_model("student", bundle.path)
        with closing(engines(f"student={url}")) as found:
            model = load_model("student", bundle.path, engines=found)
            assert model.summary.index.factory == "flat"
            there, here = (each.recommender.recommend(queries).outcomes for each in (model, own))
            assert not any(isinstance(outcome, Exception) for outcome in (*there, *here))
            assert [outcome.item_ids for outcome in there] == [outcome.item_ids for outcome in here]  # type: ignore[union-attr]
    proxy.close()


def test_a_version_that_is_not_there_is_named_with_what_to_do(
    stored: ModelRepository, engine_server: Server, proxy: Proxy
) -> None:
    url = proxy.url("absent")
    with closing(engines(url)) as found, pytest.raises(EngineError, match="load them: lowpass export --repository"):
        load_model("student", stored.resolve("student", "1"), engines=found)


def test_other_items_under_the_name_are_found_out(stored: ModelRepository, engine_server: Server, proxy: Proxy) -> None:
    address = EngineAddress.parse(proxy.url("swapped"))
    wanted, other = (open_bundle(stored.resolve("student", version)) for version in ("2", "1"))
    loaded = load_version(stored, wanted, address, kind="flat")
    with closing(engine_load._open_writer(address)) as writer:
        writer.create(loaded.collection, 8, "flat")
        writer.insert(loaded.collection, 0, np.asarray(other.item_embeddings))
        writer.build(loaded.collection, "flat", 1)
        writer.write_card(loaded.collection, loaded.card)
    with (
        closing(engines(proxy.url("swapped"))) as found,
        pytest.raises(UnusableBundle, match="not the embeddings' inner products: load it again"),
    ):
        load_model("student", wanted.path, engines=found)


def test_an_engine_that_is_gone_at_load_is_named(stored: ModelRepository, engine_server: Server, proxy: Proxy) -> None:
    proxy.cut()
    with closing(engines(proxy.url("gone"))) as found, pytest.raises(EngineError, match=r"://127\.0\.0\.1"):
        load_model("student", stored.resolve("student", "1"), engines=found)


def test_only_the_model_that_is_named_asks_the_engine(stored: ModelRepository, tmp_path: Path) -> None:
    with closing(engines("teacher=postgresql://127.0.0.1:1/d/items")) as found:
        model = load_model("student", stored.resolve("student", "1"), engines=found)
    assert model.summary.index.factory == "Flat"


def test_what_is_no_engine_is_refused() -> None:
    with pytest.raises(ExportError, match="give milvus://"):
        engines("student=http://h/items")
    with pytest.raises(WrongOptions, match="student is given two"):
        engines("student=postgresql://h/d/a", "student=postgresql://h/d/b")
