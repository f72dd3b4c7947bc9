"""The default transport: grpcio's synchronous server.

A request counts, and queues for a thread, once it has arrived whole (`whole_calls`): queue time is measured from
there, and refusals are answered on threads of their own, so that a full server still says quickly that it is full. So
is `grpc.health.v1`: load cannot make a probe fail (`Readiness`). Who may call is seen at the headers (`_Arrivals`).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter_ns, sleep
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health, health_pb2

from serve.answers.admission import Deadline
from serve.answers.call import Call
from serve.answers.errors import AddressUnavailable, RequestError
from serve.answers.limits import MAX_ANSWER_BYTES, Limits
from serve.rpc.credentials import server_credentials
from serve.rpc.interceptors import Guarded, GuardedStream, guard, guard_stream, refuse
from serve.rpc.services import AnyMethod, StreamMethod
from serve.rpc.status import Refusal
from serve.telemetry.logs import HEADER, request_id_of
from serve.telemetry.metrics import Metrics
from serve.transport import reflection
from serve.transport.address import take_path
from serve.transport.base import MAX_METADATA_BYTES, UNREADABLE, TransportSettings
from serve.transport.whole_calls import AT_MOST, UNDERSTOOD, Arriving, GrpcioCall, WholeCalls

LOG = logging.getLogger("lowpass.serve")
Send = Callable[[Any], None]

REFUSALS_QUEUED = 1024
"""Beyond the admitted requests and these, grpcio itself refuses, without details: memory stays bounded."""

STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}

STREAM_CANCELLED_AFTER = 1.0
"""Beyond its deadline, a stream whose caller does not read is cancelled; one who reads is told before, in words."""

SETTLED_AFTER, SETTLE_AT_MOST = 0.05, 1.0
"""Before stopping: this long without an arrival, in seconds, waited for at most so long."""

OPTIONS = (
    ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)

_ARRIVAL: ContextVar[tuple[int, RequestError | None]] = ContextVar("lowpass_arrival")
"""When the request arrived, and why it was not admitted, if so."""


class Readiness:
    """The standard health servicer, starting NOT_SERVING, whose watches can be ended.

    Args:
        services: Full names beside "", which stands for the whole server.
        pool: Takes probes.
    """

    def __init__(self, services: Iterable[str], pool: WholeCalls) -> None:
        self._servicer = health.HealthServicer(experimental_non_blocking=True, experimental_thread_pool=None)
        self._services = ("", health.SERVICE_NAME, *services)
        self._pool = pool
        self._watches: set[Send] = set()
        self._lock = threading.Lock()
        self.set_serving(False)

    def set_serving(self, serving: bool) -> None:
        """Say SERVING or NOT_SERVING for the server and every service."""
        status = health_pb2.HealthCheckResponse
        for name in self._services:
            self._servicer.set(name, status.SERVING if serving else status.NOT_SERVING)

    def end_watches(self) -> None:
        """End all open Watch streams: they would otherwise hold a drain for its whole grace."""
        with self._lock:
            watches, self._watches = self._watches, set()
        for send in watches:
            send(None)

    def handler(self) -> grpc.GenericRpcHandler:
        """Check and Watch, for a grpcio server."""

        def check(request: Any, context: Any) -> Any:
            return self._servicer.Check(request, context)

        def watch(request: Any, context: Any, send: Send) -> None:
            with self._lock:
                self._watches.add(send)
            context.add_callback(lambda: self._forget(send))
            self._servicer.Watch(request, context, send)

        # grpcio reads these attributes to run a method on other threads than the server's own.
        check.experimental_thread_pool = self._pool  # type: ignore[attr-defined]
        watch.experimental_thread_pool = self._pool  # type: ignore[attr-defined]
        watch.experimental_non_blocking = True  # type: ignore[attr-defined]
        request, response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        return grpc.method_handlers_generic_handler(
            health.SERVICE_NAME,
            {
                "Check": grpc.unary_unary_rpc_method_handler(check, request.FromString, response.SerializeToString),
                "Watch": grpc.unary_stream_rpc_method_handler(watch, request.FromString, response.SerializeToString),
            },
        )

    def _forget(self, send: Send) -> None:
        with self._lock:
            self._watches.discard(send)


class GrpcioServer:
    """A `Transport`.

    Args:
        settings: What it is made of.
    """

    def __init__(self, settings: TransportSettings) -> None:
        if settings.batch_wait:
            raise AddressUnavailable("--transport grpcio: works on one request a thread; --batch-wait-ms needs native")
        self._settings = settings
        if not UNDERSTOOD:
            fields = {"version": grpc.__version__}
            LOG.warning("this grpcio is not known: requests that arrive slowly hold threads", extra={"fields": fields})
        self._arriving = Arriving(settings.limits.max_deadline)
        self._side = WholeCalls(self._arriving, 2, "lowpass-side")
        self._threads = _ThreadPool(settings, self._arriving, self._side)
        self._reflecting = ThreadPoolExecutor(2, thread_name_prefix="lowpass-reflection")
        self._readiness = Readiness(settings.services, self._side)
        self._arrivals = _Arrivals(settings)
        self._path: Path | None = None
        # Unless told otherwise, a second server on the port would silently take half of the connections.
        self._server = grpc.server(
            self._threads,
            interceptors=[self._arrivals],
            options=[*OPTIONS, *_bounds(settings.limits), ("grpc.so_reuseport", int(settings.shares_port))],
            maximum_concurrent_rpcs=settings.limits.max_in_flight + REFUSALS_QUEUED + AT_MOST,
        )
        for service, methods in settings.services.items():
            self._register(service, methods)
        self._server.add_generic_rpc_handlers((self._readiness.handler(),))
        if settings.reflection:
            self._server.add_generic_rpc_handlers((self._reflection_handler(),))

    def bind(self, address: str) -> str:
        """Take the address; see `Transport`."""
        self._path = take_path("--address", address)
        tls = self._settings.tls
        credentials = server_credentials(tls) if tls is not None else None
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except (RuntimeError, ValueError) as error:
            raise AddressUnavailable(
                f"--address {address}: malformed, or in use by another server: choose another one"
            ) from error
        return address if self._path is not None else f"{address.rpartition(':')[0]}:{port}"

    def start(self) -> None:
        """Accept connections; see `Transport`."""
        self._arriving.start()
        self._server.start()

    def set_serving(self, serving: bool) -> None:
        """What health says; see `Transport`."""
        self._readiness.set_serving(serving)

    def stop(self, grace: float) -> bool:
        """Accept nothing more, let what is in flight end, close; see `Transport`."""
        give_up = monotonic() + grace
        self._arrivals.settle(min(grace, SETTLE_AT_MOST))
        stopped = self._server.stop(grace)
        self._readiness.end_watches()
        self._arriving.stop()
        emptied = self._settings.admission.wait_empty(grace)
        in_time = stopped.wait(max(0.0, give_up - monotonic()))
        stopped.wait()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        for pool in (self._threads, self._side, self._reflecting):
            pool.shutdown(wait=emptied)
        return emptied and in_time

    def _register(self, service: str, methods: tuple[AnyMethod, ...]) -> None:
        settings = self._settings
        handlers: dict[str, Any] = {}
        for method in methods:
            serve: Callable[[Any, Any], Any]
            if isinstance(method, StreamMethod):
                parts = guard_stream(method, settings.telemetry)
                serve = _adapt_stream(parts, settings.limits.max_stream_deadline, self._threads)
                make_handler: Any = grpc.unary_stream_rpc_method_handler
            else:
                guarded = guard(method, settings.telemetry)
                serve = _adapt(guarded, settings.limits.max_deadline, self._threads)
                make_handler = grpc.unary_unary_rpc_method_handler
            turn_away = _refuser(method.name, settings.telemetry.metrics)
            turn_away.experimental_thread_pool = self._side  # type: ignore[attr-defined]  # read by grpcio
            self._threads.turn_away[serve] = turn_away
            codec = (_reader(method.request), method.response.SerializeToString)
            handlers[method.name] = make_handler(serve, *codec)
            refusing = make_handler(turn_away, bytes, method.response.SerializeToString)
            self._arrivals.refusing[f"/{service}/{method.name}"] = refusing
            self._arrivals.admitted.add(f"/{service}/{method.name}")
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    def _reflection_handler(self) -> grpc.GenericRpcHandler:
        turn_away = _refuser("ServerReflectionInfo", self._settings.telemetry.metrics)
        turn_away.experimental_thread_pool = self._side  # type: ignore[attr-defined]  # read by grpcio
        self._arrivals.refusing[reflection.METHOD] = reflection.refusing_handler(turn_away)
        return reflection.reflection_handler(self._settings.services, self._reflecting)


def _bounds(limits: Limits) -> list[tuple[str, int]]:
    bounds = [
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_concurrent_streams", limits.max_concurrent_streams),
        # It refuses what a client sends in the place of an answered call that is still being freed.
        ("grpc.http.overload_protection", 0),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ]
    if limits.max_connection_age:
        # By then every call that began on the connection is over.
        grace = max(limits.max_deadline, limits.max_stream_deadline)
        bounds.append(("grpc.max_connection_age_ms", round(limits.max_connection_age * 1000)))
        bounds.append(("grpc.max_connection_age_grace_ms", round(grace * 1000)))
    return bounds


class _ThreadPool(WholeCalls):
    """Counts a request while it queues and is worked on, and one that was given up before its method ran.

    Args:
        side: Where those are told who are not admitted.

    Attributes:
        turn_away: Behaviour of a method → the one that refuses it.
    """

    def __init__(self, settings: TransportSettings, arriving: Arriving, side: WholeCalls) -> None:
        super().__init__(arriving, settings.threads, "lowpass-thread", settings.prepare_thread)
        self._admission = settings.admission
        self._metrics = settings.telemetry.metrics
        self._side = side
        self._local = threading.local()
        self.turn_away: dict[Any, Any] = {}

    def begin(self, call: GrpcioCall) -> Future[Any]:
        """A request has arrived whole: count it in and pass it to a thread, or turn it away."""
        refusal = self._admission.refusal()
        call.run(_ARRIVAL.set, (perf_counter_ns(), refusal))
        if refusal is not None:
            return self._side.work_on(call.task(self.turn_away[call.behaviour]))
        return self.work_on(call.task())

    def work_on(self, task: Callable[[], Any]) -> Future[Any]:
        """Let a thread do it, and count it until then."""
        self._admission.enter()
        return super().work_on(partial(self._work, task))

    def taken_up(self) -> None:
        """The method of this thread's request runs."""
        self._local.taken_up = True

    def _work(self, task: Callable[[], Any]) -> Any:
        self._local.taken_up = False
        try:
            return task()
        finally:
            if not self._local.taken_up:
                self._metrics.rejected("abandoned")
            self._admission.leave()


class _Arrivals(grpc.ServerInterceptor):
    """Turns those away who may not call.

    Attributes:
        refusing: Method → the handler that refuses it.
        admitted: Methods that count as load.
    """

    def __init__(self, settings: TransportSettings) -> None:
        self._admission = settings.admission
        self.admitted: set[str] = set()
        self._authorize = settings.authorize
        self._last = monotonic()
        self.refusing: dict[str, Any] = {}

    def settle(self, at_most: float) -> None:
        """Wait for a quiet moment once nothing is admitted any more.

        grpcio cancels, without a word to the caller, what has reached it but not yet Python when it stops. Turned
        away with UNAVAILABLE first, callers pause or go elsewhere, and nothing is left to cancel.
        """
        give_up = monotonic() + at_most
        closed = monotonic()
        while (now := monotonic()) < give_up and now - max(self._last, closed) < SETTLED_AFTER:
            sleep(SETTLED_AFTER / 10)

    def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        # grpcio runs the method in the context that is current here, so the stamp reaches it.
        method = handler_call_details.method
        refusing = self.refusing.get(method)
        refusal = None
        if refusing is not None and self._authorize is not None:
            refusal = self._authorize(handler_call_details.invocation_metadata)
        if refusal is None and not UNDERSTOOD and method in self.admitted:
            refusal = self._admission.refusal()
        _ARRIVAL.set((perf_counter_ns(), refusal))
        self._last = monotonic()
        return continuation(handler_call_details) if refusal is None else refusing


def _adapt(guarded: Guarded, max_deadline: float, threads: _ThreadPool) -> Callable[[Any, Any], Any]:
    def serve(request: Any, context: Any) -> Any:
        call = _take_up(request, context, max_deadline, threads)
        try:
            return guarded(request, call)
        except Refusal as refusal:
            _abort(context, refusal, call.request_id)

    return serve


def _adapt_stream(guarded: GuardedStream, max_deadline: float, threads: _ThreadPool) -> Callable[[Any, Any], Any]:
    def parts(request: Any, context: Any, call: Call) -> Iterator[Any]:
        # grpcio waits without end for a caller who does not read, unless the caller has a deadline.
        stop = threading.Timer(call.deadline.remaining + STREAM_CANCELLED_AFTER, context.cancel)
        stop.daemon = True
        stop.start()
        try:
            yield from guarded(request, call)
        except Refusal as refusal:
            _abort(context, refusal, call.request_id)
        finally:
            stop.cancel()

    def serve(request: Any, context: Any) -> Iterator[Any]:
        return parts(request, context, _take_up(request, context, max_deadline, threads))

    return serve


def _reader(message: type[Message]) -> Callable[[bytes], Message | DecodeError]:
    """What reads a request. One that it raises for, grpcio ends without ever freeing its place on the connection."""

    def read(payload: bytes) -> Message | DecodeError:
        try:
            return message.FromString(payload)
        except DecodeError as error:
            return error

    return read


def _take_up(request: Any, context: Any, max_deadline: float, threads: _ThreadPool) -> Call:
    threads.taken_up()
    (arrival, _), now = _ARRIVAL.get(), perf_counter_ns()
    arrived_at = monotonic() - (now - arrival) * 1e-9
    deadline = Deadline.of(arrived_at, max_deadline, context.time_remaining())
    metadata = context.invocation_metadata()
    request_id = request_id_of(metadata)
    context.set_trailing_metadata(((HEADER, request_id),))
    if isinstance(request, DecodeError):
        context.abort(grpc.StatusCode.INTERNAL, UNREADABLE)
    return Call(arrival, deadline, context.is_active, now, request_id=request_id, metadata=metadata)


def _refuser(method: str, metrics: Metrics) -> Callable[[Any, Any], Any]:
    def turn_away(_request: Any, context: Any) -> Any:
        arrival, error = _ARRIVAL.get()
        if error is None:
            raise RuntimeError("an admitted request was refused")
        refusal = refuse(method, error, metrics, arrival)
        _abort(context, refusal, request_id_of(context.invocation_metadata()))

    return turn_away


def _abort(context: Any, refusal: Refusal, request_id: str) -> None:
    # abort_with_status would replace the other trailers.
    context.set_trailing_metadata((*refusal.trailers, refusal.details, (HEADER, request_id)))
    context.abort(STATUS_CODES[refusal.status.code], refusal.status.message)
