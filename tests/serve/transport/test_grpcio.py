from __future__ import annotations

import pytest

from serve.answers.errors import AddressUnavailable
from serve.answers.limits import Limits
from serve.transport.grpcio import GrpcioServer
from tests.kits.transport_bench import Bench
from tests.kits.transport_kit import TransportKit


class TestGrpcioServer(TransportKit):
    transport = GrpcioServer


@pytest.mark.parametrize("address", ["", "nonsense", "256.0.0.1:x"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(AddressUnavailable, match="--address"):
        Bench(GrpcioServer, Limits(), address=address)
