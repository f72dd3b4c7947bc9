"""What every transport must do, as tests over real sockets: name the class, inherit the checks.

class TestGrpcioServer(TransportKit):
    transport = GrpcioServer
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from prometheus_client import CollectorRegistry

from serve.answers.call import Call
from serve.answers.errors import (
    AddressUnavailable,
    FieldViolation,
    InvalidRequest,
    LabelNotServed,
    ModelNotServed,
    NotFound,
    UnknownItem,
    UnknownUser,
)
from serve.answers.fake import fake_model
from serve.answers.limits import Limits
from serve.live.store import ModelStore, ServedModel
from serve.rpc import credentials
from serve.rpc.credentials import ApiKeys, new_key
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.services import SERVICE, RecommenderService
from serve.telemetry.logs import AccessLog
from serve.telemetry.metrics import Metrics
from tests.kits.authority import Authority
from tests.kits.broken_index import broken_recommender
from tests.kits.connection_kit import ConnectionKit
from tests.kits.stream_kit import StreamKit
from tests.kits.transport_bench import RECOMMEND, WAIT, Bench, details_of, eventually

LOOK_AGAIN = 0.1


def refuse_all(request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
    """Know nobody."""
    raise UnknownUser(request.user_id)


def ask_over(bench: Bench, shown: grpc.ChannelCredentials) -> list[str]:
    """Ask over a connection of its own."""
    with bench.connect(shown) as channel:
        call: Any = channel.unary_unary(
            RECOMMEND, pb.RecommendRequest.SerializeToString, pb.RecommendResponse.FromString
        )
        return list(call(pb.RecommendRequest(user_id="fresh"), timeout=3.0).item_ids)


class TransportKit(StreamKit, ConnectionKit):
    """The checks."""

    transport: ClassVar[Any]
    speaks_tls: ClassVar[bool] = True
    sends_pushback: ClassVar[bool] = True

    @contextlib.contextmanager
    def running(self, limits: Limits | None = None, **options: Any) -> Iterator[Bench]:
        bench = Bench(self.transport, limits or Limits(), **options)
        bench.open()
        try:
            yield bench
        finally:
            bench.close()

    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        if not self.speaks_tls:
            pytest.skip("this transport speaks no TLS")
        return Authority(tmp_path)

    @pytest.fixture
    def bench(self) -> Iterator[Bench]:
        with self.running() as bench:
            yield bench

    def test_answers(self, bench: Bench) -> None:
        assert bench.ask("bob").item_ids == ["bob"]
        eventually(lambda: bench.count("OK") == 1)
        labels = {"method": "Recommend", "model": "echo", "version": "1", "code": "OK"}
        seconds = bench.registry.get_sample_value("lowpass_request_duration_seconds_sum", labels)
        assert seconds is not None
        assert 0 < seconds < WAIT

    def test_prepares_the_threads_that_work(self, bench: Bench) -> None:
        bench.ask()
        assert bench.prepared

    def test_domain_errors_have_codes_and_details(self, bench: Bench) -> None:
        def refuse(request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
            raise InvalidRequest(FieldViolation("k", "is too large"))

        bench.behaviour = refuse
        error = bench.refused()
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        (violation,) = details_of(error, error_details_pb2.BadRequest).field_violations
        assert (violation.field, violation.description) == ("k", "is too large")
        assert details_of(error, error_details_pb2.ErrorInfo).reason == "INVALID_REQUEST"

    def test_names_beyond_ascii_come_back_whole(self, bench: Bench) -> None:
        def refuse(request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
            raise UnknownUser(request.user_id)

        bench.behaviour = refuse
        error = bench.refused(user_id="çağ %\n")
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert details_of(error, error_details_pb2.ResourceInfo).resource_name == "çağ %\n"

    def test_a_defect_leaks_nothing_and_is_logged(self, bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
        def fail(request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
            raise KeyError("secret")

        bench.behaviour = fail
        with caplog.at_level(logging.ERROR, "lowpass.serve"):
            error = bench.refused()
        assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
        assert "secret" not in str(error.trailing_metadata())
        assert "KeyError: 'secret'" in caplog.text
        assert bench.count("INTERNAL") == 1

    def test_unknown_methods_are_unimplemented(self, bench: Bench) -> None:
        error = bench.send_raw(f"/{SERVICE}/Nothing", b"")
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_a_message_that_is_none_fails_alone(self, bench: Bench) -> None:
        error = bench.send_raw(RECOMMEND, b"\xff\xff\xff")
        assert error.code() is grpc.StatusCode.INTERNAL
        assert bench.ask("still here").item_ids == ["still here"]
        eventually(lambda: bench.admission.in_flight == 0)

    def test_messages_beyond_the_limit_are_refused(self) -> None:
        with self.running(Limits(max_message_bytes=1000)) as bench:
            assert bench.ask("x" * 900)
            assert bench.refused(user_id="x" * 1100).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            eventually(lambda: bench.admission.in_flight == 0)

    def test_more_than_the_bound_is_refused_at_once_and_told_when_to_return(self) -> None:
        with self.running(Limits(max_in_flight=3), threads=2) as bench:
            held = bench.hold_threads(2)
            held.append(bench.ask_later("waiting"))
            eventually(lambda: bench.admission.in_flight == 3)
            error = bench.refused(timeout=2.0)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            delay = details_of(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds()
            assert delay > 0
            pushback = dict(error.trailing_metadata()).get("grpc-retry-pushback-ms")
            assert pushback == (str(delay) if self.sends_pushback else None)
            assert bench.rejected("overloaded") == 1
            assert bench.count("RESOURCE_EXHAUSTED") == 1
            assert bench.check() == "SERVING"
            bench.release.set()
            assert [call.result().item_ids[0] for call in held] == ["held-0", "held-1", "waiting"]
            eventually(lambda: bench.admission.in_flight == 0)
            assert bench.ask("again").item_ids == ["again"]

    def test_a_request_that_outwaits_its_deadline_is_not_worked_on(self) -> None:
        with self.running(threads=1) as bench:
            (held,) = bench.hold_threads(1)
            late = bench.ask_later("late", timeout=1.0)
            eventually(lambda: bench.admission.in_flight == 2)
            assert late.exception().code() is grpc.StatusCode.DEADLINE_EXCEEDED
            # The server's deadline began when the call reached it, a little after the caller's.
            time.sleep(0.2)
            bench.release.set()
            assert held.result().item_ids == ["held-0"]
            eventually(lambda: bench.rejected("abandoned") + bench.rejected("deadline") == 1)
            eventually(lambda: bench.admission.in_flight == 0)
            assert not bench.entered.acquire(blocking=False)

    def test_the_server_has_a_deadline_of_its_own(self) -> None:
        with self.running(Limits(max_deadline=0.1)) as bench:
            calls = []

            def work(request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
                calls.append(call)
                time.sleep(0.2)
                return bench.echo(request, call)

            bench.behaviour = work
            assert bench.refused().code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert len(calls) == 1
            assert bench.count("DEADLINE_EXCEEDED") == 1

    def test_queueing_counts_towards_the_deadline_and_the_queue_time(self) -> None:
        with self.running(Limits(max_deadline=5.0), threads=1) as bench:
            (held,) = bench.hold_threads(1)
            calls: list[Call] = []

            def note(request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
                calls.append(call)
                return bench.echo(request, call)

            bench.behaviour = note
            waiting = bench.ask_later("waiting")
            eventually(lambda: bench.admission.in_flight == 2)
            time.sleep(0.2)
            bench.release.set()
            assert waiting.result().item_ids == ["waiting"]
            assert held.result()
            assert calls[0].queue_ns > 0.2e9
            assert calls[0].deadline.at - time.monotonic() < 4.9

    def test_a_cancelled_call_is_counted_as_such(self, bench: Bench) -> None:
        (held,) = bench.hold_threads(1)
        held.cancel()
        time.sleep(0.1)
        bench.release.set()
        eventually(lambda: bench.count("CANCELLED") == 1)
        eventually(lambda: bench.admission.in_flight == 0)
        assert bench.count("OK") == 0

    def test_health_follows_readiness(self) -> None:
        bench = Bench(self.transport, Limits())
        try:
            assert [bench.check(name) for name in ("", SERVICE)] == ["NOT_SERVING"] * 2
            error = bench.refused()
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert details_of(error, error_details_pb2.ErrorInfo).reason == "NOT_READY"
            watch = bench.health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=WAIT)
            assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
            bench.open()
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            assert [bench.check(name) for name in ("", SERVICE)] == ["SERVING"] * 2
            with pytest.raises(grpc.RpcError) as caught:
                bench.check("nothing")
            unknown: Any = caught.value
            assert unknown.code() is grpc.StatusCode.NOT_FOUND
            assert bench.ask()
        finally:
            bench.close()

    def test_draining_ends_what_is_in_flight_and_refuses_the_rest(self) -> None:
        with self.running(threads=2) as bench:
            held = [*bench.hold_threads(2), bench.ask_later("waiting")]
            eventually(lambda: bench.admission.in_flight == 3)
            bench.transport.set_serving(False)
            assert bench.check() == "NOT_SERVING"
            with ThreadPoolExecutor(1) as pool:
                bench.admission.close()
                stopping = pool.submit(bench.transport.stop, WAIT)
                time.sleep(0.2)
                assert not stopping.done()
                assert bench.refused(timeout=2.0).code() is grpc.StatusCode.UNAVAILABLE
                bench.release.set()
                assert stopping.result(WAIT) is True
            assert [call.result().item_ids[0] for call in held] == ["held-0", "held-1", "waiting"]

    def test_an_open_watch_does_not_hold_a_drain(self) -> None:
        with self.running() as bench:
            watch = bench.health.Watch(health_pb2.HealthCheckRequest(), timeout=WAIT)
            assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
            started = time.monotonic()
            bench.admission.close()
            assert bench.transport.stop(WAIT) is True
            assert time.monotonic() - started < WAIT / 2

    def test_a_drain_that_lasts_too_long_says_so(self) -> None:
        with self.running() as bench:
            (held,) = bench.hold_threads(1)
            bench.admission.close()
            started = time.monotonic()
            assert bench.transport.stop(0.2) is False
            assert time.monotonic() - started < WAIT / 2
            assert held.exception() is not None

    def test_only_a_known_key_may_call_and_health_needs_none(self, tmp_path: Path) -> None:
        (key, line), (other, _) = new_key("reader"), new_key("stranger")
        (tmp_path / "keys").write_text(line)
        with self.running(authorize=ApiKeys(tmp_path / "keys").authorize) as bench:
            for metadata in ((), (("authorization", f"Bearer {other}"),), (("authorization", key),)):
                bench.metadata = metadata
                error = bench.refused()
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
                assert details_of(error, error_details_pb2.ErrorInfo).reason == "UNAUTHENTICATED"
                assert key not in str(error)
            bench.metadata = (("authorization", f"Bearer {key}"),)
            assert bench.ask("bob").item_ids == ["bob"]
            assert bench.check() == "SERVING"
            assert bench.rejected("unauthenticated") == 3
            with pytest.raises(grpc.RpcError) as caught:
                ProtoReflectionDescriptorDatabase(bench.channel).get_services()
            call: Any = caught.value
            assert call.code() is grpc.StatusCode.UNAUTHENTICATED

    def test_tls_names_the_server_and_refuses_plain_text(self, authority: Authority) -> None:
        with self.running(tls=authority.server, credentials=authority.trust()) as bench:
            assert bench.ask("bob").item_ids == ["bob"]
            with bench.connect(None) as plain:
                refused: Any = plain.unary_unary(RECOMMEND)
                with pytest.raises(grpc.RpcError):
                    refused(b"", timeout=2.0)

    def test_mutual_tls_lets_only_known_clients_in(self, authority: Authority) -> None:
        with self.running(tls=authority.mutual, credentials=authority.trust(with_client=True)) as bench:
            assert bench.ask("bob").item_ids == ["bob"]
            with bench.connect(authority.trust()) as stranger:
                refused: Any = stranger.unary_unary(RECOMMEND)
                with pytest.raises(grpc.RpcError):
                    refused(b"", timeout=2.0)

    def test_a_new_certificate_is_used_without_a_restart_and_a_bad_one_is_not(
        self, authority: Authority, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(credentials, "LOOK_AGAIN", LOOK_AGAIN)
        with self.running(tls=authority.server, credentials=authority.trust()) as bench:
            assert bench.ask("bob").item_ids == ["bob"]
            authority.server.certificate.write_text("no certificate")
            time.sleep(2 * LOOK_AGAIN)
            assert ask_over(bench, authority.trust()) == ["fresh"]
            authority.renew()
            time.sleep(2 * LOOK_AGAIN)
            assert ask_over(bench, authority.trust()) == ["fresh"]
            with pytest.raises(grpc.RpcError):
                ask_over(bench, authority.trust(first=True))
            assert bench.ask("bob").item_ids == ["bob"], "what is connected stays connected"

    def test_a_request_has_an_id_in_and_out_and_in_the_log(self, caplog: pytest.LogCaptureFixture) -> None:
        with self.running(access_log=AccessLog(1.0)) as bench, caplog.at_level(logging.INFO, "lowpass.access"):
            request = pb.RecommendRequest(user_id="bob")

            def ask(*metadata: tuple[str, str]) -> str:
                _, call = bench.caller().with_call(request, timeout=WAIT, metadata=metadata)
                return str(dict(call.trailing_metadata())["x-request-id"])

            assert ask(("x-request-id", "order-7")) == "order-7"
            made = ask()
            assert len(made) == 16
            assert ask(("x-request-id", "two words")) != "two words"
            bench.behaviour = refuse_all
            error = bench.refused()
            failed = dict(error.trailing_metadata())["x-request-id"]
            eventually(lambda: len(caplog.records) == 4)
            lines = [getattr(record, "fields", {}) for record in caplog.records]
        assert [line["request_id"] for line in lines[:2]] == ["order-7", made]
        assert (lines[3]["request_id"], lines[3]["code"]) == (failed, "NOT_FOUND")
        assert (lines[0]["method"], lines[0]["model"], lines[0]["code"]) == ("Recommend", "echo", "OK")
        assert lines[0]["total_us"] > 0

    def test_reflection_can_be_switched(self) -> None:
        with self.running(reflection=True) as bench:
            database: Any = ProtoReflectionDescriptorDatabase(bench.channel)
            assert SERVICE in database.get_services()
            assert "grpc.health.v1.Health" in database.get_services()
        with self.running(reflection=False) as bench:
            silent: Any = ProtoReflectionDescriptorDatabase(bench.channel)
            with pytest.raises(grpc.RpcError):
                silent.get_services()

    def test_a_taken_address_is_refused(self, bench: Bench) -> None:
        with pytest.raises(AddressUnavailable, match="--address"):
            Bench(self.transport, Limits(), address=bench.address)

    def test_an_address_is_shared_among_those_who_all_ask_for_it(self) -> None:
        with self.running(shares_port=True) as one, self.running(shares_port=True, address=one.address) as other:
            with pytest.raises(AddressUnavailable):
                Bench(self.transport, Limits(), address=one.address)
            for number in range(40):
                with one.connect(None) as channel:
                    ask: Any = channel.unary_unary(
                        RECOMMEND, pb.RecommendRequest.SerializeToString, pb.RecommendResponse.FromString
                    )
                    assert ask(pb.RecommendRequest(user_id=str(number)), timeout=WAIT).item_ids == [str(number)]
            eventually(lambda: one.count("OK") + other.count("OK") == 40)
            assert min(one.count("OK"), other.count("OK")) >= 4

    def test_a_hundred_clients_at_once(self, bench: Bench) -> None:
        def client(number: int) -> list[str]:
            own = [("grpc.use_local_subchannel_pool", 1)]
            with grpc.insecure_channel(bench.address, own) as channel:
                ask: Any = channel.unary_unary(
                    RECOMMEND, pb.RecommendRequest.SerializeToString, pb.RecommendResponse.FromString
                )
                return [
                    ask(pb.RecommendRequest(user_id=f"{number}-{turn}"), timeout=WAIT, wait_for_ready=True).item_ids[0]
                    for turn in range(3)
                ]

        with ThreadPoolExecutor(100) as pool:
            answers = list(pool.map(client, range(100)))
        assert answers == [[f"{number}-{turn}" for turn in range(3)] for number in range(100)]
        eventually(lambda: bench.count("OK") == 300)
        eventually(lambda: bench.admission.in_flight == 0)

    @pytest.mark.parametrize("kind", [UnknownUser, UnknownItem, ModelNotServed, LabelNotServed])
    @pytest.mark.parametrize("letter", ["x", "ç", "%", "🙂"])
    def test_a_name_of_any_length_leaves_the_error_what_it_is(
        self, bench: Bench, kind: type[NotFound], letter: str
    ) -> None:
        def refuse(request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
            raise kind(letter * 6000)

        bench.behaviour = refuse
        error = bench.refused()
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert kind.remedy in error.details()
        assert details_of(error, error_details_pb2.ResourceInfo).resource_name.startswith(letter * 100)

    def test_the_word_bearer_may_be_written_in_any_case(self, tmp_path: Path) -> None:
        key, line = new_key("reader")
        (tmp_path / "keys").write_text(line)
        with self.running(authorize=ApiKeys(tmp_path / "keys").authorize) as bench:
            for scheme in ("bearer", "BEARER"):
                bench.metadata = (("authorization", f"{scheme} {key}"),)
                assert bench.ask("bob").item_ids == ["bob"]

    def test_work_that_looks_up_ends_with_its_caller_or_its_time(self) -> None:
        with self.running(Limits(max_deadline=0.5), threads=1) as bench:

            def work(request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
                bench.entered.release()
                while True:
                    call.check()
                    time.sleep(0.001)

            bench.behaviour = work
            left = bench.ask_later("left")
            assert bench.entered.acquire(timeout=WAIT)
            left.cancel()
            eventually(lambda: bench.count("CANCELLED") == 1)
            eventually(lambda: bench.admission.in_flight == 0)
            assert bench.refused().code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert bench.count("DEADLINE_EXCEEDED") == 1
            bench.behaviour = bench.echo
            assert bench.ask("next").item_ids == ["next"]

    def test_while_nothing_finishes_newcomers_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real, passed = time.monotonic, [0.0]
        monkeypatch.setattr("serve.answers.admission.monotonic", lambda: real() + passed[0])
        with self.running(Limits(max_deadline=3000.0), threads=2, max_wait=100.0) as bench:
            held = [*bench.hold_threads(2), bench.ask_later("waiting")]
            eventually(lambda: bench.admission.in_flight == 3)
            passed[0] = 150.0
            error = bench.refused(timeout=2.0)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert details_of(error, error_details_pb2.RetryInfo).retry_delay.ToSeconds() >= 100
            passed[0] = 0.0
            bench.release.set()
            assert [call.result().item_ids[0] for call in held] == ["held-0", "held-1", "waiting"]

    def test_what_unpacks_to_more_than_the_limit_is_refused(self) -> None:
        with self.running(Limits(max_message_bytes=100_000)) as bench:
            call: Any = bench.channel.unary_unary(RECOMMEND, response_deserializer=pb.RecommendResponse.FromString)

            def send(size: int) -> Any:
                message = pb.RecommendRequest(user_id="x" * size).SerializeToString()
                return call(message, timeout=WAIT, compression=grpc.Compression.Gzip)

            assert send(90_000).item_ids == ["x" * 90_000]
            with pytest.raises(grpc.RpcError) as caught:
                send(10 << 20)
            refused: Any = caught.value
            assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            eventually(lambda: bench.admission.in_flight == 0)

    def test_a_defect_stays_with_its_call(self) -> None:
        made, index = broken_recommender(100, bad=(5, 77))
        store = ModelStore()
        store.add(ServedModel(fake_model("m")[0], made))
        service = RecommenderService(store, Limits(), Metrics(CollectorRegistry()), "0")
        bench = Bench(
            lambda settings: self.transport(replace(settings, services={SERVICE: service.methods()})),
            Limits(),
            threads=1,
        )
        bench.open()
        try:
            calls = [bench.ask_later(f"user-{user}") for user in range(100)]
            ended = [call.code() for call in calls]
        finally:
            bench.close()
        assert [user for user, code in enumerate(ended) if code is grpc.StatusCode.INTERNAL] == [5, 77]
        assert ended.count(grpc.StatusCode.OK) == 98
        assert index.searches > 0
