"""What every transport must do with connections; `TransportKit` inherits it."""

from __future__ import annotations

import socket
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest

from serve.answers.errors import AddressUnavailable
from serve.answers.limits import Limits
from serve.rpc.credentials import ApiKeys, new_key
from tests.kits.raw_http2 import (
    DATA,
    HEADERS,
    PREFACE,
    SETTINGS,
    RawConnection,
    call_headers,
    frame,
    header_frames,
)
from tests.kits.transport_bench import RECOMMEND, STREAM, WAIT, Bench, eventually

MAX_CONCURRENT_STREAMS = 3


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
    ends_slow_arrivals: ClassVar[bool] = True

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
            assert failed == []
            answered = [call.result().item_ids[0] if call.exception() is None else None for call in held]
            assert {*answered} - {None} <= {f"held-{number}" for number in range(6)}
            assert len(answered) - len(failed) >= 2
            eventually(lambda: bench.admission.in_flight == 0)

    @pytest.mark.parametrize("kind", [RECOMMEND, STREAM])
    def test_requests_that_never_arrive_whole_hold_no_thread_and_end_in_time(self, kind: str) -> None:
        with self.running(Limits(max_deadline=1.0), threads=2) as bench:
            slow = RawConnection(bench.address)
            assert slow.send(header_frames(2 * number + 1, call_headers(kind)) for number in range(20))
            for number in range(20):
                slow.send([frame(DATA, 0, 2 * number + 1, b"\x00")])
            for number in range(5):
                assert bench.ask(f"u{number}").item_ids == [f"u{number}"]
            assert bench.check() == "SERVING", "probes and refusals have threads of their own, and those are free too"
            assert bench.admission.in_flight == 0
            if self.ends_slow_arrivals:
                eventually(lambda: slow.answered.get(HEADERS, 0) == 20)
            slow.close()

    def test_strangers_who_never_send_their_request_hold_no_thread(self, tmp_path: Path) -> None:
        key, line = new_key("somebody")
        (tmp_path / "keys").write_text(line)
        with self.running(authorize=ApiKeys(tmp_path / "keys").authorize) as bench:
            slow = RawConnection(bench.address)
            assert slow.send(header_frames(2 * number + 1, call_headers(RECOMMEND)) for number in range(20))
            bench.metadata = (("authorization", f"Bearer {key}"),)
            assert bench.ask("ann").item_ids == ["ann"]
            bench.metadata = ()
            assert bench.refused().code() == grpc.StatusCode.UNAUTHENTICATED
            assert bench.check() == "SERVING"
            slow.close()

    def test_more_metadata_than_a_call_may_have_is_refused(self) -> None:
        with self.running() as bench:
            bench.metadata = (("x-large", "v" * 7000),)
            assert bench.ask("ann").item_ids == ["ann"]
            bench.metadata = (("x-large", "v" * 9000),)
            # HTTP's own 431 is UNKNOWN to gRPC.
            assert bench.refused().code() in {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNKNOWN}
            bench.metadata = ()
            assert bench.ask("ann").item_ids == ["ann"]

    def test_it_listens_on_ipv6(self) -> None:
        with self.running(address="[::1]:0") as bench:
            assert bench.address.startswith("[::1]:")
            assert bench.ask("ann").item_ids == ["ann"]

    def test_it_listens_on_a_unix_socket_that_no_other_server_has(self, tmp_path: Path) -> None:
        address = f"unix:{tmp_path}/s"
        with self.running(address=address) as bench:
            assert bench.address == address
            assert bench.ask("ann").item_ids == ["ann"]
            with pytest.raises(AddressUnavailable, match="in use by another server"), self.running(address=address):
                pass
            assert bench.ask("ben").item_ids == ["ben"]
        assert list(tmp_path.iterdir()) == []

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
