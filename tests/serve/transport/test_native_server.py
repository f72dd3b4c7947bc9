from __future__ import annotations

from pathlib import Path

import pytest

from serve.errors import AddressUnavailable
from serve.limits import Limits
from tests.kits.authority import Authority
from tests.kits.transport_bench import Bench
from tests.kits.transport_kit import TransportKit

native = pytest.importorskip("serve.transport.native_server", reason="the extra 'native' is not installed")


class TestNativeServer(TransportKit):
    transport = native.NativeServer
    speaks_tls = False
    sends_pushback = False
    ages_connections = False


def test_tls_is_refused_in_words(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    with pytest.raises(AddressUnavailable, match="speaks no TLS"):
        Bench(native.NativeServer, Limits(), tls=authority.server)


def test_an_age_of_connections_is_refused_in_words() -> None:
    with pytest.raises(AddressUnavailable, match="has no --max-connection-age; use --transport grpcio"):
        Bench(native.NativeServer, Limits(max_connection_age=60.0))
