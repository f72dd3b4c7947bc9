"""Versions loaded into real engines: measured, seen only when whole, and the plain name that follows `stable`."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pymilvus
import pytest
from click.testing import CliRunner

from export.build import engine_load
from export.build.engine_load import load_version
from export.bundle import EngineError, ExportError, ModelRepository, open_bundle
from export.bundle.engines import KINDS, EngineAddress, collection_name, open_engine
from export.commands.export import export
from tests.kits.engines import MilvusServer, PostgresServer, Proxy, Server
from tests.serve.repositories import DIM, ITEMS, publish, two_versions


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    return two_versions(tmp_path_factory.mktemp("stored"))


def load(repository: ModelRepository, url: str, version: str = "1", **settings: Any) -> engine_load.Loaded:
    bundle = open_bundle(repository.resolve("student", version))
    return load_version(repository, bundle, EngineAddress.parse(url), **settings)


def read(url: str, repository: ModelRepository, version: str) -> Any:
    address = EngineAddress.parse(url)
    items_id = open_bundle(repository.resolve("student", version)).manifest.items_id
    with closing(open_engine(address)) as engine:
        return engine.read_card(collection_name(address.name, version, items_id), 10.0)


def test_a_version_is_loaded_measured_and_found_there_again(
    stored: ModelRepository, engine_server: Server, proxy: Proxy
) -> None:
    url = proxy.url("once")
    loaded = load(stored, url, kind="flat")
    card = loaded.card
    assert (card.items, card.dim, card.kind, card.recall, card.recall_k) == (ITEMS, DIM, "flat", 1.0, 20)
    assert loaded.users == 60
    assert "finds 100.0% of the exact top 20" in loaded.describe()
    assert read(url, stored, "1") == card
    again = load(stored, url)
    assert (again.card, again.seconds, again.users) == (card, 0.0, 0)
    assert "there already" in again.describe()
    with pytest.raises(ExportError, match="is there as flat: drop it"):
        load(stored, url, kind="ivf_flat")


def test_a_load_that_is_cut_is_not_seen_and_starts_clean(
    stored: ModelRepository, engine_server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = proxy.url("cut")
    for step in ("insert", "build", "write_card"):
        made = engine_load._open_writer(EngineAddress.parse(url))

        def fail(*_: Any) -> Any:
            raise KeyboardInterrupt

        monkeypatch.setattr(type(made), step, fail)
        made.close()
        with pytest.raises(KeyboardInterrupt):
            load(stored, url, kind="flat")
        monkeypatch.undo()
        assert read(url, stored, "1") is None
    assert load(stored, url, kind="flat").card.recall == 1.0


def test_an_index_that_does_not_find_enough_is_not_seen(
    stored: ModelRepository, engine_server: Server, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_load, "rungs", lambda kind, lists: [{"nprobe": 1}])
    url = proxy.url("poor")
    with pytest.raises(ExportError, match=r"ivf_flat finds [\d.]+% of the exact top 20 at most, and 100.1% is wanted"):
        load(stored, url, kind="ivf_flat", recall=1.001)
    assert read(url, stored, "1") is None


def test_an_engine_that_is_gone_is_named(stored: ModelRepository, engine_server: Server, proxy: Proxy) -> None:
    proxy.cut()
    with pytest.raises(EngineError, match=proxy.url("gone").partition("://")[0]) as raised:
        load(stored, proxy.url("gone"))
    assert raised.value.reason in ("unreachable", "timeout")
    assert "postgres@" not in str(raised.value)


@pytest.mark.parametrize("kind", KINDS["pgvector"])
def test_every_index_of_pgvector(stored: ModelRepository, postgres: PostgresServer, kind: str) -> None:
    proxy = Proxy(postgres)
    card = load(stored, proxy.url(f"kind_{kind}"), kind=kind).card
    assert card.recall >= 0.99
    assert card.bytes_per_item > 4 * DIM / (2 if kind == "hnsw_half" else 1)
    proxy.close()


def test_the_plain_name_follows_stable(tmp_path: Path, postgres: PostgresServer) -> None:
    repository, proxy = two_versions(tmp_path), Proxy(postgres)
    url = proxy.url("followed")

    def shown() -> Any:
        with psycopg.connect(EngineAddress.parse(url).conninfo) as connection:
            rows: list[Any] = connection.execute("SELECT embedding FROM followed ORDER BY id").fetchall()
            return np.array([json.loads(row[0]) for row in rows], dtype=np.float32)

    def items(version: str) -> Any:
        return open_bundle(repository.resolve("student", version)).item_embeddings

    assert load(repository, url, "1").alias == "followed"
    np.testing.assert_allclose(shown(), items("1"), rtol=1e-5)
    assert load(repository, url, "2").alias == ""
    np.testing.assert_allclose(shown(), items("1"), rtol=1e-5)
    repository.set_label("student", "stable", "2")
    assert load(repository, url, "2").alias == "followed"
    np.testing.assert_allclose(shown(), items("2"), rtol=1e-5)
    repository.set_label("student", "stable", "1")
    half = load(repository, url.replace("followed", "halves"), "1", kind="hnsw_half")
    with psycopg.connect(EngineAddress.parse(url).conninfo) as connection:  # as a table of other vectors would be
        connection.execute(f'DROP VIEW followed; CREATE VIEW followed AS SELECT id, embedding FROM "{half.collection}"')
    assert load(repository, url, "1").alias == "followed"
    np.testing.assert_allclose(shown(), items("1"), rtol=1e-5)
    proxy.close()


def test_a_table_of_somebody_else_is_not_replaced(stored: ModelRepository, postgres: PostgresServer) -> None:
    proxy = Proxy(postgres)
    url = proxy.url("theirs")
    with psycopg.connect(EngineAddress.parse(url).conninfo) as connection:
        connection.execute("CREATE TABLE theirs (a integer)")
    with pytest.raises(ExportError, match="theirs is no view there: give another name"):
        load(stored, url, "1")
    proxy.close()


def test_a_graph_is_searched_by_its_index(postgres: PostgresServer) -> None:
    from export.bundle.engines.pgvector import _ASK
    from tests.kits.loading import load_items

    proxy = Proxy(postgres)
    items = np.random.default_rng(0).normal(size=(5000, DIM)).astype(np.float32)
    index = load_items(proxy, items, "hnsw")
    with psycopg.connect(EngineAddress.parse(proxy.url()).conninfo) as connection:
        ask = _ASK.format(cast=psycopg.sql.SQL(""), table=psycopg.sql.Identifier(index._name))
        plan = connection.execute(psycopg.sql.SQL("EXPLAIN ") + ask, (["[1,0,0,0,0,0,0,0]"], 20)).fetchall()
    assert any("Index Scan using" in line and "embedding_idx" in line for (line,) in plan), plan
    proxy.close()


def test_an_index_the_engine_has_not_is_refused(stored: ModelRepository) -> None:
    with pytest.raises(ExportError, match="--to-index hnsw_half: milvus://h:1/x takes one of ivf_flat, flat"):
        load(stored, "milvus://h:1/x", kind="hnsw_half")


def test_settings_go_from_quick_to_thorough() -> None:
    assert engine_load.rungs("flat", 7) == [{}]
    assert engine_load.rungs("ivf_flat", 7) == [{"nprobe": 2}, {"nprobe": 4}, {"nprobe": 7}]
    assert [rung["nprobe"] for rung in engine_load.rungs("ivf_sq8", 4096)][-2:] == [512, 1024]
    assert all(rung["k_factor"] == 2 for rung in engine_load.rungs("hnsw_half", 1))


def test_a_version_that_is_there_is_loaded_by_the_command(
    stored: ModelRepository, postgres: PostgresServer, tmp_path: Path
) -> None:
    proxy = Proxy(postgres)
    words = ["--repository", str(stored.root), "--model", "student:2", "--to", proxy.url("typed")]
    done = CliRunner().invoke(export, words)
    assert done.exit_code == 0, done.output
    assert "typed_v2_" in done.output
    assert "hnsw ef=" in done.output
    told = json.loads(CliRunner().invoke(export, [*words, "--json"]).stdout)
    assert told["engine"]["card"]["items"] == ITEMS
    assert told["model"]["version"] == "2"
    for more, wrong in (
        (["--dtype", "float16"], "--dtype: has no effect here"),
        (["--to-index", "magic"], "--to-index magic"),
        (["--to", "ftp://x"], "give milvus://"),
    ):
        refused = CliRunner().invoke(export, [*words, *more])
        assert refused.exit_code != 0
        assert wrong in str(refused.exception)
    refused = CliRunner().invoke(export, ["--repository", str(stored.root), "--model", "x", "--to-index", "flat"])
    assert "--to-index: has no effect without --to" in str(refused.exception)
    proxy.close()


def test_a_bundle_in_half_precision(tmp_path: Path, engine_server: Server, proxy: Proxy) -> None:
    publish(tmp_path, "student", factory="Flat", seed=4, dtype="float16")
    loaded = load(ModelRepository(tmp_path), proxy.url("halved"), kind="flat")
    assert loaded.card.recall >= 0.99
    assert replace(loaded, note="n").describe().endswith("; n")


class AliasClient:
    """What Milvus says of aliases, which the edition for tests does not know.

    Args:
        code: Of the error when one is altered; 0 for none.
    """

    def __init__(self, code: int) -> None:
        self._code = code
        self.calls: list[tuple[str, ...]] = []

    def alter_alias(self, collection: str, alias: str, timeout: float) -> None:
        self.calls.append(("alter", collection, alias))
        if self._code:
            raise pymilvus.MilvusException(code=self._code, message="alias\nsecond line")

    def create_alias(self, collection: str, alias: str, timeout: float) -> None:
        self.calls.append(("create", collection, alias))


@pytest.mark.parametrize(("code", "calls"), [(0, ["alter"]), (1600, ["alter", "create"])])
def test_an_alias_of_milvus_is_moved_or_made(milvus: MilvusServer, code: int, calls: list[str]) -> None:
    milvus.start()
    proxy = Proxy(milvus)
    client = AliasClient(code)
    with closing(engine_load._open_writer(EngineAddress.parse(proxy.url()))) as writer:
        own = writer._client  # type: ignore[attr-defined]
        writer._client = client  # type: ignore[attr-defined]
        assert writer.point("items", "items_v1_ab")
        writer._client = own  # type: ignore[attr-defined]
    assert client.calls == [(call, "items_v1_ab", "items") for call in calls]
    proxy.close()


def test_an_alias_that_milvus_refuses_is_an_error_in_a_line(milvus: MilvusServer) -> None:
    milvus.start()
    proxy = Proxy(milvus)
    with closing(engine_load._open_writer(EngineAddress.parse(proxy.url()))) as writer:
        own = writer._client  # type: ignore[attr-defined]
        writer._client = AliasClient(1601)  # type: ignore[attr-defined]
        with pytest.raises(EngineError, match=r"items: alias$"):
            writer.point("items", "items_v1_ab")
        writer._client = own  # type: ignore[attr-defined]
    proxy.close()


@pytest.mark.parametrize("dim", [8, 512])
def test_a_block_of_items_fits_into_a_message(engine_server: Server, proxy: Proxy, dim: int) -> None:
    rows = engine_load.block_rows(dim)
    with closing(engine_load._open_writer(EngineAddress.parse(proxy.url()))) as writer:
        writer.create(f"block_{dim}", dim, "flat")
        writer.insert(f"block_{dim}", 0, np.ones((rows, dim), np.float32))
        writer.build(f"block_{dim}", "flat", 1)
