"""A transport under test: one method whose behaviour the test chooses, and a channel to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status
from prometheus_client import CollectorRegistry

from serve.answers.admission import Admission
from serve.answers.call import Call
from serve.answers.limits import Limits
from serve.rpc.credentials import Authorize, TlsFiles
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.services import SERVICE, Method, Parts, StreamMethod
from serve.telemetry.logs import NO_LOG, AccessLog
from serve.telemetry.metrics import Metrics
from serve.telemetry.telemetry import Telemetry
from serve.transport.base import Transport, TransportSettings
from tests.kits.waiting import wait_for

RECOMMEND = f"/{SERVICE}/Recommend"
STREAM = f"/{SERVICE}/StreamRecommend"
WAIT = 10.0


class Bench:
    """A transport with a method and a streaming one whose behaviour the test chooses, and a channel to it.

    Args:
        make: The transport.
        limits: What is accepted.
        threads: Threads.
        reflection: Whether to offer it.
        address: To bind.
        authorize: Who may call.
        tls: Certificates of the server.
        credentials: Of the channel.
        access_log: Where requests leave a line.
        shares_port: Whether others may bind the address too.
        retries: Whether the channel, as gRPC makes it by default, sends anew what no server began on (gRFC A6).
        max_wait: Longest expected wait of who is admitted; 0 for no bound.
    """

    def __init__(
        self,
        make: Callable[[TransportSettings], Transport],
        limits: Limits,
        threads: int = 2,
        reflection: bool = True,
        address: str = "127.0.0.1:0",
        authorize: Authorize | None = None,
        tls: TlsFiles | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        access_log: AccessLog = NO_LOG,
        shares_port: bool = False,
        retries: bool = False,
        max_wait: float = 0.0,
    ) -> None:
        self.release, self.entered = threading.Event(), threading.Semaphore(0)
        self.behaviour: Callable[[pb.RecommendRequest, Call], pb.RecommendResponse] = self.echo
        self.parts: Callable[[pb.StreamRecommendRequest, Call], Parts[pb.StreamRecommendResponse]] = self.count_up
        self.registry = CollectorRegistry()
        self.admission = Admission(limits.max_in_flight, max_wait=max_wait, threads=threads)
        self.prepared: list[str] = []
        method = Method("Recommend", pb.RecommendRequest, pb.RecommendResponse, self.behave)
        stream = StreamMethod(
            "StreamRecommend", pb.StreamRecommendRequest, pb.StreamRecommendResponse, self.yield_parts
        )
        self.transport = make(
            TransportSettings(
                services={SERVICE: (method, stream)},
                admission=self.admission,
                limits=limits,
                telemetry=Telemetry(Metrics(self.registry), access_log),
                threads=threads,
                shares_port=shares_port,
                reflection=reflection,
                prepare_thread=lambda: self.prepared.append(threading.current_thread().name),
                authorize=authorize,
                tls=tls,
            )
        )
        self.address = self.transport.bind(address)
        self.transport.start()
        self.metadata: tuple[tuple[str, str], ...] = ()
        self.channel = self.connect(credentials, retries)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)

    def connect(self, credentials: grpc.ChannelCredentials | None, retries: bool = False) -> grpc.Channel:
        options = [("grpc.enable_retries", int(retries)), ("grpc.use_local_subchannel_pool", 1)]
        if credentials is None:
            return grpc.insecure_channel(self.address, options)
        return grpc.secure_channel(self.address, credentials, options)

    def open(self) -> None:
        self.admission.open()
        self.transport.set_serving(True)

    def behave(self, request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
        return self.behaviour(request, call)

    def echo(self, request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
        call.model, call.version = "echo", "1"
        return pb.RecommendResponse(item_ids=[request.user_id])

    def hold(self, request: pb.RecommendRequest, call: Call) -> pb.RecommendResponse:
        self.entered.release()
        assert self.release.wait(WAIT)
        return self.echo(request, call)

    def yield_parts(self, request: pb.StreamRecommendRequest, call: Call) -> Parts[pb.StreamRecommendResponse]:
        return self.parts(request, call)

    def count_up(self, request: pb.StreamRecommendRequest, call: Call) -> Parts[pb.StreamRecommendResponse]:
        call.model, call.version = "echo", "1"
        for position in range(len(request.requests)):
            yield pb.StreamRecommendResponse(first_position=position)

    def stream(self, count: int, timeout: float = WAIT) -> Any:
        call: Any = self.channel.unary_stream(
            STREAM, pb.StreamRecommendRequest.SerializeToString, pb.StreamRecommendResponse.FromString
        )
        request = pb.StreamRecommendRequest(requests=[pb.RecommendRequest(user_id="u")] * count)
        return call(request, timeout=timeout, metadata=self.metadata)

    def caller(self) -> Any:
        return self.channel.unary_unary(
            RECOMMEND, pb.RecommendRequest.SerializeToString, pb.RecommendResponse.FromString
        )

    def ask(self, user_id: str = "ann", timeout: float = WAIT) -> pb.RecommendResponse:
        request = pb.RecommendRequest(user_id=user_id)
        answer: pb.RecommendResponse = self.caller()(request, timeout=timeout, metadata=self.metadata)
        return answer

    def ask_later(self, user_id: str = "ann", timeout: float = WAIT) -> Any:
        return self.caller().future(pb.RecommendRequest(user_id=user_id), timeout=timeout)

    def send_raw(self, method: str, message: bytes) -> Any:
        call: Any = self.channel.unary_unary(method)
        with pytest.raises(grpc.RpcError) as caught:
            call(message, timeout=WAIT)
        return caught.value

    def refused(self, **options: Any) -> Any:
        with pytest.raises(grpc.RpcError) as caught:
            self.ask(**options)
        return caught.value

    def hold_threads(self, count: int) -> list[Any]:
        self.behaviour = self.hold
        held = [self.ask_later(f"held-{number}") for number in range(count)]
        for _ in held:
            assert self.entered.acquire(timeout=WAIT)
        return held

    def check(self, service: str = "") -> str:
        answer = self.health.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def count(self, code: str, method: str = "Recommend") -> float:
        labels = {"method": method, "code": code}
        return sum(
            sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == "lowpass_request_duration_seconds_count" and labels.items() <= sample.labels.items()
        )

    def rejected(self, reason: str) -> float:
        return self.registry.get_sample_value("lowpass_requests_rejected_total", {"reason": reason}) or 0.0

    def close(self) -> None:
        self.release.set()
        self.admission.close()
        self.transport.stop(WAIT)
        self.channel.close()


eventually = partial(wait_for, within=WAIT)


def details_of(error: Any, kind: Any) -> Any:
    status = rpc_status.from_call(error)
    assert status is not None
    for packed in status.details:
        if packed.Is(kind.DESCRIPTOR):
            detail = kind()
            packed.Unpack(detail)
            return detail
    raise AssertionError(f"no {kind.__name__} in {status}")
