from __future__ import annotations

import socket
from pathlib import Path

import pytest

from serve.answers.errors import AddressUnavailable
from serve.transport.address import UnixPath, is_local, read_address, split_address, take_path


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("127.0.0.1:50051", ("127.0.0.1", 50051)),
        ("localhost:0", ("localhost", 0)),
        ("[::1]:50051", ("::1", 50051)),
        ("unix:/run/lowpass.sock", UnixPath(Path("/run/lowpass.sock"))),
        ("unix:///run/lowpass.sock", UnixPath(Path("/run/lowpass.sock"))),
        ("unix:here.sock", UnixPath(Path("here.sock"))),
    ],
)
def test_what_an_address_may_be(address: str, found: object) -> None:
    assert read_address("--address", address) == found


@pytest.mark.parametrize("address", ["", ":", "a", "a:b", "a:70000", "::1:50051", "[::1:50051", "::1]:5", "unix:"])
def test_what_it_may_not_be(address: str) -> None:
    with pytest.raises(AddressUnavailable, match=r"--address .*e\.g\.|must be unix:PATH"):
        read_address("--address", address)


def test_a_path_that_no_system_takes_is_refused() -> None:
    with pytest.raises(AddressUnavailable, match="1 to 100 bytes"):
        read_address("--address", "unix:/" + "x" * 100)


def test_a_path_is_refused_where_only_a_port_will_do() -> None:
    with pytest.raises(AddressUnavailable, match="--metrics-address unix:x: cannot be a Unix socket"):
        split_address("--metrics-address", "unix:x")


def test_who_can_reach_it() -> None:
    assert [is_local(each) for each in ("127.0.0.2:1", "[::1]:1", "localhost:1", "unix:x")] == [True] * 4
    assert [is_local(each) for each in ("0.0.0.0:1", "[::]:1", "example.org:1")] == [False] * 3


def test_a_path_is_taken_only_from_the_dead(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert take_path("--address", "127.0.0.1:0") is None
    assert take_path("--address", f"unix:{path}") == path
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        with pytest.raises(AddressUnavailable, match="in use by another server"):
            take_path("--address", f"unix:{path}")
    assert take_path("--address", f"unix:{path}") == path, "nobody listens any more"
    assert not path.exists()
    path.write_text("somebody's")
    with pytest.raises(AddressUnavailable, match="is no socket"):
        take_path("--address", f"unix:{path}")
    assert path.read_text() == "somebody's"
    with pytest.raises(AddressUnavailable, match="make it first"):
        take_path("--address", f"unix:{tmp_path}/nowhere/s")
