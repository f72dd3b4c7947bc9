"""Headers that take a byte on the wire and hundreds in memory, against a server in a process of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from psutil import Process

from serve.client.recommender import RecommenderClient
from tests.kits.raw_http2 import RESET, RawConnection, header_bomb
from tests.kits.transport_bench import RECOMMEND, eventually
from tests.serve.processes import ServerProcess, serving

STREAMS = 1024
BOUND = 64 << 20
NATIVE = pytest.mark.skipif(
    importlib.util.find_spec("pygrpc_native") is None, reason="the extra 'native' is not installed"
)


@pytest.fixture(scope="module", params=["grpcio", pytest.param("native", marks=NATIVE)])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--fake", "--drain-wait", "0", "--transport", request.param)
    with serving(tmp_path_factory.mktemp("bomb"), *options) as running:
        yield running
        assert running.terminate() == 0


@pytest.mark.parametrize("acknowledge", [True, False])
@pytest.mark.parametrize(("value", "names"), [(b"v", 230), (b"v", 2000), (b"v" * 3900, 2000)])
def test_a_connection_makes_a_server_hold_less_than_64_mib(
    server: ServerProcess, value: bytes, names: int, acknowledge: bool
) -> None:
    if not acknowledge and "'grpcio'" in str(server.process.args):
        pytest.skip("grpcio's bound of headers begins with the client's word that it read the settings")
    process = Process(server.process.pid)
    with RecommenderClient(server.address, timeout=10.0) as client:
        client.recommend("user-1", k=3)
        before = process.memory_info().rss
        bomb = RawConnection(server.address, acknowledge=acknowledge)
        try:
            bomb.send(header_bomb(RECOMMEND, STREAMS, names, value))
            # Nearly all are refused; what is left is what the bound of streams lets in.
            eventually(lambda: bomb.is_closed or bomb.answered.get(RESET, 0) >= STREAMS - 64)
            assert process.memory_info().rss - before < BOUND
            assert len(client.recommend("user-1", k=3)) == 3
        finally:
            bomb.close()
