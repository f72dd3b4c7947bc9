"""The fast transport: HTTP/2 and gRPC in Rust threads outside the GIL (pygrpc-native), batches as they come.

One of `--threads` + 1 threads receives. What it receives it admits or refuses at once; then it works, and goes on
receiving while calls are quick. Where they are not it first hands the receiving over, unless all threads are at work:
then what it received waits in a queue (`Backlog`). So whatever has queued while threads were busy is the next batch,
without a timer, and a full server still says quickly that it is full. Answers in parts go no further ahead than their
caller reads (`send_parts`), and `NativeHealth` answers `grpc.health.v1` as calls arrive.

What it cannot do: TLS, closing connections by age, the trailer `grpc-retry-pushback-ms` (RetryInfo in the details
says the same), and refusing a message before it is received and unpacked: its front has no bound on sizes and does not
say what was compressed. Reflection is answered by a grpcio server on a socket beside it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter_ns, sleep
from typing import Any

from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2
from grpc_health.v1 import health_pb2
from pygrpc_native import EVENT_CALL, STREAM_FULL, STREAM_SENT, NativeGrpcFront

from serve.answers.admission import Deadline
from serve.answers.call import Call
from serve.answers.errors import AddressUnavailable, DeadlineExpired
from serve.rpc.interceptors import GuardedMany, GuardedStream, guard_many, guard_stream, refuse
from serve.rpc.services import AnyMethod, Method, Parts, StreamMethod
from serve.rpc.status import INTERNAL, Refusal
from serve.telemetry.logs import HEADER, request_id_of
from serve.transport.address import is_local, take_path
from serve.transport.base import MAX_METADATA_BYTES, UNREADABLE, TransportSettings
from serve.transport.reflection import ReflectionServer

LOG = logging.getLogger("lowpass.serve")
SERVICE = "grpc.health.v1.Health"
Response = health_pb2.HealthCheckResponse
UNBOUNDED = (
    "receives and unpacks a message whole before --max-message-bytes refuses it: for callers you know;"
    " --transport grpcio for others"
)
BATCH_AT_MOST = 64
RECEIVED_AT_MOST = 1024
"""Calls counted or refused between two batches: a flood must not keep those that were admitted from their answers."""
QUICK = 250e-6
"""While a call takes less, in seconds, the thread that received goes on receiving: handing over would cost as much."""
SLOW_READER = 0.005
"""Between looks at whether a caller has read enough to be sent more, in seconds."""
FLUSH = 0.05
"""Before closing, so that answers given last leave the process, in seconds."""


@dataclass(slots=True)
class Pending:
    """An admitted call.

    Args:
        payload: The request as received.
        call: What the services see of it.
    """

    call_id: int
    method: int
    payload: bytes
    call: Call


class Backlog:
    """Calls that wait, and how many threads are at work; thread-safe.

    Args:
        threads: Threads that work at a time.
        answers_many: Whether a method's calls may be answered together.
    """

    def __init__(self, threads: int, answers_many: Callable[[int], bool]) -> None:
        self._threads = threads
        self._answers_many = answers_many
        self._waiting: deque[Pending] = deque()
        self._working = 0
        self._lock = threading.Lock()

    def add(self, calls: Iterable[Pending]) -> None:
        """Let calls wait."""
        self._waiting.extend(calls)

    def begin(self) -> list[Pending]:
        """A batch for a thread that was idle; empty where nothing waits, or all threads are at work."""
        with self._lock:
            batch = self._take() if self._working < self._threads else []
            self._working += bool(batch)
            return batch

    def go_on(self) -> list[Pending]:
        """The next batch for a thread that has finished one; empty, and the thread is idle, where nothing waits."""
        with self._lock:
            batch = self._take()
            self._working -= not batch
            return batch

    def end(self) -> None:
        """A thread is idle."""
        with self._lock:
            self._working -= 1

    def _take(self) -> list[Pending]:
        if not self._waiting:
            return []
        batch = [self._waiting.popleft()]
        first = batch[0].method
        if self._answers_many(first):
            while self._waiting and self._waiting[0].method == first and len(batch) < BATCH_AT_MOST:
                batch.append(self._waiting.popleft())
        return batch


def send_parts(front: Any, call_id: int, parts: Parts[Message], call: Call) -> None:
    """Send parts until there are no more, the caller has left, or time is up.

    Args:
        call_id: The call's, at the front.
        parts: Guarded.

    Raises:
        Refusal: The parts end with one, or the caller did not read in time.
    """
    for part in parts:
        payload = part.SerializeToString()
        while (state := front.stream_try_send(call_id, payload)) == STREAM_FULL:
            if call.deadline.expired:
                parts.throw(DeadlineExpired("the caller did not read in time"))
            sleep(SLOW_READER)
        if state != STREAM_SENT:
            parts.close()
            return
    front.stream_end(call_id, ((HEADER, call.request_id),))


class NativeHealth:
    """The standard health service, starting NOT_SERVING.

    Args:
        services: Full names beside "", which stands for the whole server.
        first_method: Number of the first of its methods at the front.

    Attributes:
        methods: Path, and whether it streams.
    """

    def __init__(self, services: Iterable[str], first_method: int) -> None:
        self.front: Any = None
        self.methods = [(f"/{SERVICE}/Check", False), (f"/{SERVICE}/Watch", True)]
        self._check = first_method
        self._known = frozenset(("", SERVICE, *services))
        self._is_serving = False
        self._watches: dict[int, bool] = {}
        self._lock = threading.Lock()

    def set_serving(self, serving: bool) -> None:
        """Say SERVING or NOT_SERVING for the server and every service."""
        with self._lock:
            self._is_serving = serving
            for call_id, is_known in self._watches.items():
                if is_known:
                    self.front.stream_send(call_id, self._answer(is_known))

    def answer(self, call_id: int, method: int, payload: bytes) -> None:
        """Answer a call of one of its methods."""
        try:
            service = health_pb2.HealthCheckRequest.FromString(payload).service
        except DecodeError:
            self.front.fail(call_id, code_pb2.INTERNAL, "the message cannot be read")
            return
        is_known = service in self._known
        if method != self._check:
            with self._lock:
                self._watches[call_id] = is_known
                self.front.stream_send(call_id, self._answer(is_known))
        elif is_known:
            self.front.respond(call_id, self._answer(is_known))
        else:
            self.front.fail(call_id, code_pb2.NOT_FOUND, "unknown service")

    def forget(self, call_id: int) -> None:
        """A caller went away."""
        with self._lock:
            self._watches.pop(call_id, None)

    def end_watches(self) -> None:
        """End all open Watch streams."""
        with self._lock:
            watches, self._watches = list(self._watches), {}
        for call_id in watches:
            self.front.stream_end(call_id)

    def _answer(self, is_known: bool) -> bytes:
        if not is_known:
            return Response(status=Response.SERVICE_UNKNOWN).SerializeToString()
        return Response(status=Response.SERVING if self._is_serving else Response.NOT_SERVING).SerializeToString()


class NativeServer:
    """A `Transport`.

    Args:
        settings: What it is made of.
    """

    def __init__(self, settings: TransportSettings) -> None:
        if settings.tls is not None:
            raise AddressUnavailable("--transport native: speaks no TLS; use --transport grpcio")
        if settings.limits.max_connection_age:
            raise AddressUnavailable("--transport native: has no --max-connection-age; use --transport grpcio")
        self._settings = settings
        self._methods: list[tuple[str, AnyMethod]] = [
            (f"/{service}/{method.name}", method)
            for service, methods in settings.services.items()
            for method in methods
        ]
        self._answers = [self._answerer(method) for _, method in self._methods]
        self._health = NativeHealth(settings.services, first_method=len(self._methods))
        self._front: Any = None
        self._path: Path | None = None
        self._fallback: ReflectionServer | None = None
        self._receiving = threading.Lock()
        self._backlog = Backlog(settings.threads, self._answers_many)
        self._seconds_a_call = QUICK
        self._active: set[int] = set()
        self._threads: list[threading.Thread] = []

    def bind(self, address: str) -> str:
        """Take the address; see `Transport`."""
        methods = [(path, isinstance(method, StreamMethod)) for path, method in self._methods]
        self._path = take_path("--address", address)
        try:
            self._front = NativeGrpcFront(
                address,
                [*methods, *self._health.methods],
                io_threads=1,
                call_details=True,
                max_concurrent_streams=self._settings.limits.max_concurrent_streams,
                max_metadata_size=MAX_METADATA_BYTES,
                reuse_port=self._settings.shares_port,
            )
            port = self._front.bound_port
        except (RuntimeError, ValueError, OSError) as error:
            raise AddressUnavailable(
                f"--address {address}: malformed, or in use by another server: choose another one"
            ) from error
        if not is_local(address):
            LOG.warning("--transport native: %s", UNBOUNDED, extra={"fields": {"address": address}})
        self._health.front = self._front
        if self._settings.reflection:
            self._fallback = ReflectionServer(self._settings.services, self._settings.authorize)
            self._front.set_fallback(self._fallback.path)
        return address if self._path is not None else f"{address.rpartition(':')[0]}:{port}"

    def start(self) -> None:
        """Accept connections; see `Transport`."""
        self._front.start()
        for number in range(self._settings.threads + 1):
            name = f"lowpass-thread-{number}"
            thread = threading.Thread(target=self._run, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def set_serving(self, serving: bool) -> None:
        """What health says; see `Transport`."""
        self._health.set_serving(serving)

    def stop(self, grace: float) -> bool:
        """Accept nothing more, let what is in flight end, close; see `Transport`."""
        if self._front is None:
            return True
        emptied = self._settings.admission.wait_empty(grace)
        self._health.end_watches()
        if self._threads:
            sleep(FLUSH)
        self._front.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        for thread in self._threads:
            thread.join(None if emptied else 0.0)
        if self._fallback is not None:
            self._fallback.stop()
        return emptied

    def _run(self) -> None:
        if self._settings.prepare_thread is not None:
            self._settings.prepare_thread()
        while True:
            with self._receiving:
                batch = self._next_batch()
                while batch and self._keeps_receiving(batch):
                    self._work(batch)
                    self._backlog.end()
                    batch = self._next_batch()
            if batch is None:
                return
            while batch:
                self._work(batch)
                batch = self._backlog.go_on()

    def _keeps_receiving(self, batch: Sequence[Pending]) -> bool:
        return self._answers_many(batch[0].method) and self._seconds_a_call < QUICK

    def _next_batch(self) -> list[Pending] | None:
        """Receive until there is a batch and a thread for it; None at the end."""
        # What came meanwhile is counted or refused before anything is worked on.
        for _ in range(RECEIVED_AT_MOST // BATCH_AT_MOST):
            received = self._receive(0)
            if received < BATCH_AT_MOST:
                break
        while received >= 0:
            if batch := self._backlog.begin():
                return batch
            received = self._receive(None)
            if received > 0 and self._settings.batch_wait:
                sleep(self._settings.batch_wait)
                received = self._receive(0)
        return None

    def _receive(self, timeout_ms: int | None) -> int:
        """Count in or refuse what has come; returns how many events, -1 at the end."""
        events = self._front.recv_batch_details(BATCH_AT_MOST, timeout_ms)
        if events is None:
            return -1
        arrival = perf_counter_ns()
        self._backlog.add([pending for event in events if (pending := self._admit(event, arrival)) is not None])
        return len(events)

    def _answers_many(self, number: int) -> bool:
        method = self._methods[number][1]
        return isinstance(method, Method) and method.handle_many is not None

    def _admit(self, event: Any, arrival: int) -> Pending | None:
        """Count a call in, or end it here; a defect ends the call, not the thread."""
        try:
            return self._count_in(event, arrival)
        except Exception:
            LOG.exception("defect in the transport")
            self._front.fail(event[1], code_pb2.INTERNAL, INTERNAL.message)
            return None

    def _count_in(self, event: Any, arrival: int) -> Pending | None:
        kind, call_id, method, payload, _, details = event
        if kind != EVENT_CALL:
            self._active.discard(call_id)
            self._health.forget(call_id)
            return None
        if method >= len(self._methods):
            self._health.answer(call_id, method, payload)
            return None
        settings = self._settings
        metadata, _, remaining = details
        refusal = settings.authorize(metadata) if settings.authorize is not None else None
        if refusal is None:
            refusal = settings.admission.refusal()
        if refusal is not None:
            name = self._methods[method][1].name
            self._fail(call_id, refuse(name, refusal, settings.telemetry.metrics, arrival), request_id_of(metadata))
            return None
        if len(payload) > settings.limits.max_message_bytes:
            text = f"message of {len(payload)} bytes: send at most {settings.limits.max_message_bytes}"
            self._front.fail(call_id, code_pb2.RESOURCE_EXHAUSTED, text)
            return None
        settings.admission.enter()
        self._active.add(call_id)
        streams = isinstance(self._methods[method][1], StreamMethod)
        longest = settings.limits.max_stream_deadline if streams else settings.limits.max_deadline
        deadline = Deadline.of(monotonic(), longest, remaining)
        is_active = partial(self._active.__contains__, call_id)
        call = Call(arrival, deadline, is_active, arrival, request_id=request_id_of(metadata), metadata=metadata)
        return Pending(call_id, method, payload, call)

    def _fail(self, call_id: int, refusal: Refusal, request_id: str) -> None:
        trailers = (refusal.details, (HEADER, request_id))
        self._front.fail(call_id, refusal.status.code, refusal.status.message, trailers)

    def _work(self, batch: Sequence[Pending]) -> None:
        """Answer calls of one method, and count them out; a defect ends them, not the thread."""
        started = perf_counter_ns()
        try:
            self._take_up(batch)
        except Exception:
            LOG.exception("defect in the transport")
            for pending in batch:
                self._give_up(pending)
        finally:
            if self._answers_many(batch[0].method):
                self._seconds_a_call = (perf_counter_ns() - started) * 1e-9 / len(batch)
            for pending in batch:
                self._active.discard(pending.call_id)
                self._settings.admission.leave()

    def _take_up(self, batch: Sequence[Pending]) -> None:
        method = self._methods[batch[0].method][1]
        taken_up = perf_counter_ns()
        requests, answered = [], []
        for pending in batch:
            if pending.call_id not in self._active:
                self._settings.telemetry.metrics.rejected("abandoned")
                continue
            pending.call.taken_up_ns = taken_up
            try:
                requests.append(method.request.FromString(pending.payload))
                answered.append(pending)
            except DecodeError:
                self._front.fail(pending.call_id, code_pb2.INTERNAL, UNREADABLE)
        if answered:
            self._answers[batch[0].method](answered, requests)

    def _give_up(self, pending: Pending) -> None:
        # What has been answered already is left as it is by the front.
        with suppress(Exception):
            self._front.fail(pending.call_id, code_pb2.INTERNAL, INTERNAL.message)

    def _answerer(self, method: AnyMethod) -> Callable[[Sequence[Pending], Sequence[Message]], None]:
        telemetry = self._settings.telemetry
        if isinstance(method, StreamMethod):
            return partial(self._answer_in_parts, guard_stream(method, telemetry))
        return partial(self._answer, guard_many(method, telemetry))

    def _answer(self, guarded: GuardedMany, answered: Sequence[Pending], requests: Sequence[Message]) -> None:
        found = guarded(requests, [pending.call for pending in answered])
        for pending, outcome in zip(answered, found, strict=True):
            try:
                self._end(pending, outcome)
            except Exception:
                LOG.exception("defect in the transport")
                self._give_up(pending)

    def _answer_in_parts(
        self, guarded: GuardedStream, answered: Sequence[Pending], requests: Sequence[Message]
    ) -> None:
        for pending, request in zip(answered, requests, strict=True):
            try:
                send_parts(self._front, pending.call_id, guarded(request, pending.call), pending.call)
            except Refusal as refusal:
                self._fail(pending.call_id, refusal, pending.call.request_id)

    def _end(self, pending: Pending, outcome: Message | Refusal) -> None:
        request_id = pending.call.request_id
        if isinstance(outcome, Refusal):
            self._fail(pending.call_id, outcome, request_id)
        else:
            trailers = ((HEADER, request_id),)
            self._front.respond(pending.call_id, outcome.SerializeToString(), trailing_metadata=trailers)
