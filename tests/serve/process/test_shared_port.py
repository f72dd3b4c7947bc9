from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grpc
import pytest

from serve.answers.errors import AddressUnavailable
from serve.process.shared_port import SharedPort


@pytest.fixture
def port() -> Iterator[SharedPort]:
    held = SharedPort("--address", "127.0.0.1:0")
    yield held
    held.close()


def listening(address: str, reuse: int) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", reuse)])
    server.add_insecure_port(address)
    server.start()
    return server


def test_workers_listen_on_it_and_nobody_else(port: SharedPort) -> None:
    workers = [listening(port.address, 1) for _ in range(2)]
    with pytest.raises(RuntimeError):
        listening(port.address, 0)
    for worker in workers:
        worker.stop(0.0).wait()


def test_the_holder_itself_is_given_no_connection(port: SharedPort) -> None:
    host, number = port.address.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(number)), timeout=5.0)


def test_what_is_held_is_refused_before_and_after_workers_listen(port: SharedPort) -> None:
    with pytest.raises(AddressUnavailable, match="--address"):
        SharedPort("--address", port.address)
    worker = listening(port.address, 1)
    with pytest.raises(AddressUnavailable, match="in use"):
        SharedPort("--address", port.address)
    worker.stop(0.0).wait()


def test_a_single_server_has_its_port_alone() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as single:
        address = f"127.0.0.1:{single.getsockname()[1]}"
        with pytest.raises(AddressUnavailable, match="in use"):
            SharedPort("--http-address", address)


def test_a_port_whose_old_connections_linger_can_be_taken_again(port: SharedPort) -> None:
    worker = listening(port.address, 1)
    host, number = port.address.split(":")
    callers = [socket.create_connection((host, int(number)), timeout=5.0) for _ in range(5)]
    worker.stop(0.0).wait()
    port.close()
    for caller in callers:
        caller.close()
    again = SharedPort("--address", port.address)
    again.close()
    assert again.address == port.address


def test_a_name_stands_for_all_its_addresses() -> None:
    held = SharedPort("--address", "localhost:0")
    host, number = held.address.split(":")
    assert host == "localhost"
    with pytest.raises(AddressUnavailable):
        SharedPort("--address", f"127.0.0.1:{number}")
    held.close()


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "192.0.2.1:0", "no-such-host.invalid:0"])
def test_what_is_no_address_here_is_named(address: str) -> None:
    with pytest.raises(AddressUnavailable, match="--health-address"):
        SharedPort("--health-address", address)
