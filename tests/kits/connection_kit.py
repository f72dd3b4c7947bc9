"""What every transport must do with connections; `TransportKit` inherits it."""

from __future__ import annotations

import socket
import time
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import grpc
import pytest

from serve.answers.limits import Limits
from tests.kits.transport_bench import WAIT, Bench, eventually

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, MAX_CONCURRENT_STREAMS = 4, 3


def announced_settings(address: str) -> dict[int, int]:
    """What the server says in its first frame (RFC 9113, section 6.5)."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=WAIT) as one:
        one.sendall(PREFACE + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
        stream = one.makefile("rb")
        header = stream.read(9)
        assert header[3] == SETTINGS
        body = stream.read(int.from_bytes(header[:3], "big"))
    pairs = [body[at : at + 6] for at in range(0, len(body), 6)]
    return {int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big") for pair in pairs}


class ConnectionKit:
    """The checks."""

    ages_connections: ClassVar[bool] = True
    resets_at_the_bound: ClassVar[bool] = False

    def running(self, limits: Limits | None = None, **options: Any) -> AbstractContextManager[Bench]:
        raise NotImplementedError

    def test_more_requests_than_a_connection_may_carry_wait_at_the_client(self) -> None:
        with self.running(Limits(max_concurrent_streams=2), threads=4) as bench:
            assert announced_settings(bench.address)[MAX_CONCURRENT_STREAMS] == 2
            assert bench.ask("first").item_ids == ["first"]
            bench.behaviour = bench.hold
            held = [bench.ask_later(f"held-{number}") for number in range(6)]
            for _ in range(2):
                assert bench.entered.acquire(timeout=WAIT)
            assert not bench.entered.acquire(timeout=0.3)
            assert bench.admission.in_flight == 2
            bench.release.set()
            failed = [call.exception() for call in held if call.exception() is not None]
            if self.resets_at_the_bound:
                assert {error.code() for error in failed} <= {grpc.StatusCode.UNAVAILABLE}, "told to ask again"
            else:
                assert failed == []
            answered = [call.result().item_ids[0] if call.exception() is None else None for call in held]
            assert {*answered} - {None} <= {f"held-{number}" for number in range(6)}
            assert len(answered) - len(failed) >= 2
            eventually(lambda: bench.admission.in_flight == 0)

    def test_an_old_connection_is_left_for_a_new_one_without_a_failed_request(self) -> None:
        if not self.ages_connections:
            pytest.skip("this transport does not close connections by age")
        # A request may meet the server's GOAWAY before it is sent: gRPC sends it anew, unless its retries are off.
        with self.running(Limits(max_connection_age=0.4), retries=True) as bench:
            states: list[grpc.ChannelConnectivity] = []
            bench.channel.subscribe(states.append)
            bench.behaviour = bench.hold
            long_one = bench.ask_later("long")
            assert bench.entered.acquire(timeout=WAIT)
            bench.behaviour = bench.echo
            give_up = time.monotonic() + WAIT
            asked = 0
            while states.count(grpc.ChannelConnectivity.READY) < 3 and time.monotonic() < give_up:
                asked += 1
                assert bench.ask(f"u{asked}").item_ids == [f"u{asked}"]
            assert states.count(grpc.ChannelConnectivity.READY) >= 3, states
            bench.release.set()
            assert long_one.result().item_ids == ["long"], "what began on an old connection ends on it"
            eventually(lambda: bench.count("OK") == asked + 1)
