from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest

from export.bundle import EngineError, ExportError
from export.bundle.engines import Card, EngineAddress, collection_name
from export.bundle.engines.address import masked
from export.bundle.engines.engine import padded

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        (f"milvus://ann:{SECRET}@db.example:19530/items", "milvus://db.example:19530/items"),
        ("milvus://127.0.0.1:19530/shop/items?secure=true", "milvus://127.0.0.1:19530/shop/items"),
        (f"postgresql://ann:{SECRET}@db.example/shop/items?sslmode=require", "postgresql://db.example/shop/items"),
        ("postgres:///shop/items?host=/run/postgresql", "postgresql:///shop/items"),
    ],
)
def test_a_url_is_understood_and_shown_without_who_asks(url: str, place: str) -> None:
    address = EngineAddress.parse(url)
    assert address.place == place
    assert address.name == "items"
    assert SECRET not in repr(address)
    assert masked(url) == place.replace("postgresql:///", url.partition(":")[0] + ":///")


def test_libpq_is_given_what_the_url_says() -> None:
    address = EngineAddress.parse(
        "postgresql://ann:pw@db.example:5433/shop/items?sslmode=verify-full&connect_timeout=3"
    )
    assert address.conninfo == "postgresql://ann:pw@db.example:5433/shop?sslmode=verify-full&connect_timeout=3"


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        (f"http://ann:{SECRET}@h/items", "give milvus://HOST:PORT/NAME or postgresql://"),
        (SECRET, "the URL of the engine: give milvus://"),
        (f"postgresql://ann:{SECRET}@h/items", "give postgresql://HOST:PORT/DATABASE/NAME"),
        (f"milvus://ann:{SECRET}@h:19530/a/b/c", "DATABASE"),
        (f"milvus://ann:{SECRET}@h:x/items", "give milvus://HOST:PORT"),
        (f"milvus://ann:{SECRET}@h:19530/my-items", "name 'my-items' must be letters"),
        (f"milvus://ann:{SECRET}@h:19530/{'x' * 33}", "at most 32"),
        (f"milvus://ann:{SECRET}@h:19530/items?sslmode=require", "unknown option 'sslmode'"),
        ("milvus:///items", "names no host"),
    ],
)
def test_a_url_that_is_none_is_refused_without_its_password(url: str, wrong: str) -> None:
    with pytest.raises(ExportError, match=wrong) as refused:
        EngineAddress.parse(url)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://ann:{SECRET}?x@h/d/items",
        f"postgresql://ann:x?{SECRET}@h/d/items",
        f"postgresql://ann:12/{SECRET}@h/items",
        f"milvus://ann:12/{SECRET}@h",
        f"milvus://ann:12/{SECRET}?x@h/items",
        f"milvus://ann:12/{SECRET}#x@h/items",
        f"milvus://ann:{SECRET}[x@h/items",
        f"milvus://ann:{SECRET}\u2100@h/items",
        f"http://ann:{SECRET}?x@h/items",
    ],
)
def test_a_password_that_is_not_escaped_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ExportError) as refused:
        EngineAddress.parse(url)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_what_is_escaped_in_a_password_reaches_each_engine_as_it_reads_it() -> None:
    assert EngineAddress.parse("milvus://an%40n:p%2Fw@h:1/items").token == "an@n:p/w"
    assert EngineAddress.parse("postgresql://ann:p%2Fw@h/shop/items").conninfo == "postgresql://ann:p%2Fw@h/shop"


@pytest.mark.parametrize(
    ("url", "conninfo"),
    [
        ("postgresql:///shop/items?host=/run/pg&port=5433", "postgresql:///shop?host=%2Frun%2Fpg&port=5433"),
        ("postgresql://ann@/shop/items?host=/run/pg", "postgresql://ann@/shop?host=%2Frun%2Fpg"),
        ("postgresql://h/shop/items?options=-c%20jit%3Doff", "postgresql://h/shop?options=-c%20jit%3Doff"),
    ],
)
def test_a_socket_and_options_reach_libpq_as_it_reads_them(url: str, conninfo: str) -> None:
    assert EngineAddress.parse(url).conninfo == conninfo


def test_a_token_comes_from_the_url_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = EngineAddress.parse("milvus://h:1/items")
    assert plain.token == ""
    monkeypatch.setenv("MILVUS_TOKEN", "root:Milvus")
    assert plain.token == "root:Milvus"
    secret = tmp_path / "token"
    secret.write_text("key\n", encoding="utf-8")
    monkeypatch.setenv("MILVUS_TOKEN_FILE", str(secret))
    assert plain.token == "key"
    assert EngineAddress.parse("milvus://ann:pw@h:1/items").token == "ann:pw"
    secret.unlink()
    with pytest.raises(ExportError, match="MILVUS_TOKEN_FILE"):
        _ = plain.token


def test_a_collection_is_of_one_bundle() -> None:
    assert collection_name("items", "3", "ab12cd34" * 8) == "items_v3_ab12cd34"
    assert len(collection_name("x" * 32, "9" * 18, "a" * 64)) <= 63  # bytes of a name in PostgreSQL


def test_a_card_comes_back() -> None:
    card = Card("id", 5, 2, "ivf_sq8", 0.97, 20, 12.5, {"nprobe": 8, "k_factor": 2})
    assert Card.from_json(card.to_json(), "items") == card


@pytest.mark.parametrize(
    "text",
    [
        "",
        "somebody's own comment",
        "[]",
        '{"lowpass": 2}',
        '{"lowpass": 1, "items_id": "x"}',
        '{"lowpass": 1, "items_id": "x", "items": -1, "dim": 2, "kind": "flat", "recall": 1, "recall_k": 20}',
        '{"lowpass": 1, "items_id": "x", "items": 1, "dim": 2, "kind": "magic", "recall": 1, "recall_k": 20}',
        '{"lowpass": 1, "items_id": "x", "items": 1, "dim": 2, "kind": "flat", "recall": 1, "recall_k": 20,'
        ' "search": {"nprobe": 99999999}}',
        '{"lowpass": 1, "items_id": "x", "items": 1, "dim": 2, "kind": "flat", "recall": 1, "recall_k": 20,'
        ' "search": {"sleep": 1}}',
    ],
)
def test_a_card_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(EngineError, match=r"items: its card .*: load it again"):
        Card.from_json(text, "items")


def test_lists_of_several_lengths_become_a_table() -> None:
    scores, rows = padded(3, [2, 0, 3], np.arange(5, dtype=np.float32), np.arange(5))
    np.testing.assert_array_equal(rows, [[0, 1, -1], [-1, -1, -1], [2, 3, 4]])
    assert np.isneginf(scores[1]).all()
    assert scores[0, 1] == 1


def test_no_driver_is_imported_before_it_is_asked_for() -> None:
    code = (
        "import sys, export.bundle.engines, serve.live.engines;"
        "print([name for name in ('pymilvus', 'pandas', 'psycopg', 'pgvector') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("url", "package"), [("milvus://h:1/x", "pymilvus"), ("postgresql://h/d/x", "psycopg")])
def test_a_missing_driver_is_named_with_its_extra(url: str, package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from export.bundle.engines import EngineAddress, open_engine\n"
        f"try: open_engine(EngineAddress.parse({url!r}))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("EngineExtraMissing")
    assert "pip install 'lowpass[" in done.stdout
