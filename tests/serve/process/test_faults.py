"""What is done to a server from outside, and what was lost: nothing. Real sockets and processes, both transports."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from export.bundle.repository import ModelRepository
from serve.client.recommender import RecommenderClient
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from tests.serve.live.test_live_models import load, resources
from tests.serve.processes import ServerProcess, serving
from tests.serve.repositories import publish

RECOMMEND = "/lowpass.v1.RecommenderService/Recommend"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TRANSPORTS = [
    "grpcio",
    pytest.param(
        "native",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("pygrpc_native") is None, reason="the extra 'native' is not installed"
        ),
    ),
]


@contextmanager
def faced(folder: Path, transport: str) -> Iterator[ServerProcess]:
    root = folder / "models"
    root.mkdir()
    publish(root, "student", factory="Flat", seed=1)
    with serving(folder, "--repository", str(root), "--transport", transport, "--drain-wait", "0") as running:
        yield running
        assert running.terminate() == 0, "after all of this it stops in order"


@pytest.fixture(scope="module", params=TRANSPORTS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One server that bears everything that comes by the network."""
    with faced(tmp_path_factory.mktemp("faults"), request.param) as running:
        yield running


def still_answers(server: ServerProcess) -> None:
    with RecommenderClient(server.address, timeout=10.0) as client:
        assert len(client.recommend("u1", k=5)) == 5


@pytest.mark.timeout(180)
def test_ten_thousand_malformed_messages(server: ServerProcess) -> None:
    rng = np.random.default_rng(0)
    codes: Counter[str] = Counter()
    with grpc.insecure_channel(server.address, [("grpc.enable_retries", 0)]) as channel:
        call: Any = channel.unary_unary(RECOMMEND)
        for _ in range(100):
            messages = [rng.bytes(int(size)) for size in rng.integers(0, 200, 100)]
            calls = [call.future(message, timeout=30.0) for message in messages]
            for each in calls:
                codes["OK" if each.exception() is None else each.code().name] += 1
    assert sum(codes.values()) == 10_000
    assert set(codes) <= {"OK", "INTERNAL", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"}, codes
    assert codes["INTERNAL"] > 5000
    still_answers(server)
    assert not [event for event in server.events() if event["event"] == "defect in a method"]


def garbage(rng: np.random.Generator, kind: int) -> bytes:
    """Noise; noise behind a preface; frames of random type, flags and length; a preface cut short."""
    if kind == 0:
        return bytes(rng.bytes(200))
    if kind == 1:
        return PREFACE + rng.bytes(200)
    if kind == 2:
        frames = []
        for _ in range(20):
            body = rng.bytes(int(rng.integers(0, 60)))
            frames.append(
                len(body).to_bytes(3, "big") + rng.bytes(2) + (int(rng.integers(0, 9))).to_bytes(4, "big") + body
            )
        return PREFACE + (b"\x00" * 3 + b"\x04" + b"\x00" * 5) + b"".join(frames)
    return PREFACE[: int(rng.integers(1, len(PREFACE)))]


@pytest.mark.timeout(120)
def test_http2_garbage_and_half_open_connections_under_load(server: ServerProcess) -> None:
    rng = np.random.default_rng(1)
    host, port = server.address.split(":")
    with load(server.address, clients=8):
        time.sleep(1.0)  # every thread of every pool is there
    before = resources(server)
    with load(server.address, clients=2) as counts:
        half_open = [socket.create_connection((host, int(port))) for _ in range(50)]
        for number in range(400):
            with socket.create_connection((host, int(port)), timeout=5.0) as one:
                one.sendall(garbage(rng, number % 4))
        for each in half_open:
            each.close()
    assert set(counts) == {"version 1"}, "callers beside it notice nothing"
    assert counts["version 1"] > 10
    still_answers(server)
    give_up = time.monotonic() + 20
    while (after := resources(server))[2] > before[2] + 2 and time.monotonic() < give_up:
        time.sleep(0.1)
    assert after[2] <= before[2] + 2, "no file stays open"
    assert after[1] <= before[1] + 2, "no thread stays"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_bundle_deleted_or_replaced_while_served(transport: str, tmp_path: Path) -> None:
    with faced(tmp_path, transport) as server:
        replace_what_is_served(server, tmp_path / "models")


def replace_what_is_served(server: ServerProcess, root: Path) -> None:
    with RecommenderClient(server.address) as client:
        before = [client.recommend(f"u{user}", k=10, include_titles=True) for user in range(20)]
    path = ModelRepository(root).resolve("student", "1")
    with load(server.address, clients=2) as counts:
        shutil.rmtree(path)
        time.sleep(0.2)
        publish(root, "student", version="1", factory="Flat", seed=9)
        time.sleep(0.2)
    assert set(counts) == {"version 1"}
    with RecommenderClient(server.address) as client:
        after = [client.recommend(f"u{user}", k=10, include_titles=True) for user in range(20)]
    assert [answer.item_ids for answer in after] == [answer.item_ids for answer in before], "what is loaded is served"


def wait_for_series(server: ServerProcess, line: str) -> None:
    give_up = time.monotonic() + 10
    while line not in server.scrape():
        assert time.monotonic() < give_up, f"{line} did not come"
        time.sleep(0.05)


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """An HTTP/2 frame (RFC 9113, section 4.1)."""
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def literal(index: int, value: bytes) -> bytes:
    """A header whose name is in HPACK's static table (RFC 7541, section 6.2.2)."""
    name = bytes([index]) if index < 15 else bytes([15, index - 15])
    return name + bytes([len(value)]) + value


def question(address: str) -> bytes:
    """A Recommend call over a connection on which the server may not send a byte of an answer's body."""
    message = pb.RecommendRequest(user_id="u1", k=5).SerializeToString()
    # :method POST, :scheme http, :path, :authority, content-type; te is a literal name.
    headers = b"\x83\x86" + literal(4, RECOMMEND.encode()) + literal(1, address.encode())
    headers += literal(31, b"application/grpc") + b"\x00\x02te\x08trailers"
    settings = frame(4, 0, 0, b"\x00\x04" + (0).to_bytes(4, "big"))
    body = b"\x00" + len(message).to_bytes(4, "big") + message
    return PREFACE + settings + frame(1, 4, 1, headers) + frame(0, 1, 1, body)


def test_callers_that_never_read_hold_nobody(server: ServerProcess) -> None:
    host, port = server.address.split(":")
    counted = 'lowpass_request_duration_seconds_count{code="OK",method="Recommend",model="student",version="1"} '
    before = next((line for line in server.scrape().splitlines() if line.startswith(counted)), "0").split()[-1]
    sockets = [socket.create_connection((host, int(port))) for _ in range(20)]
    for each in sockets:
        each.sendall(question(server.address))
    wait_for_series(server, f"{counted}{float(before) + 20}\n")
    still_answers(server)
    wait_for_series(server, "lowpass_requests_in_flight 0.0")
    for each in sockets:
        each.close()
