"""The fast transport: HTTP/2 and gRPC in Rust threads outside the GIL (pygrpc-native), batches as they come.

One of `workers` + 1 threads always receives. What it receives it admits or refuses at once; then it hands the receiving
over and works, unless all workers are at work: then what it received waits in a queue. So whatever has queued while
workers were busy is the next batch, without a timer, and a full server still says quickly that it is full.

What it cannot do: TLS, closing connections by age, and the trailer `grpc-retry-pushback-ms` (RetryInfo in the details
says the same). Reflection is answered by a grpcio server on a socket beside it.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import monotonic, perf_counter_ns, sleep
from typing import Any

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2
from grpc_status import rpc_status
from pygrpc_native import EVENT_CALL, NativeGrpcFront

from serve.access_log import HEADER, request_id_of
from serve.admission import Deadline
from serve.credentials import Authorize
from serve.errors import AddressUnavailable, Unauthenticated
from serve.rpc.call import Call, Refusal
from serve.rpc.interceptors import GuardedMany, guard_many, refuse
from serve.rpc.services import Method
from serve.rpc.status import INTERNAL
from serve.transport import reflection
from serve.transport.base import TransportSettings
from serve.transport.native_health import NativeHealth

LOG = logging.getLogger("lowpass.serve")
BATCH_AT_MOST = 64
FLUSH = 0.05
"""Before closing, so that answers given last leave the process, in seconds."""


@dataclass(slots=True)
class _Pending:
    """An admitted call."""

    call_id: int
    method: int
    payload: bytes
    call: Call


class NativeServer:
    """A `Transport`.

    Args:
        settings: What it is made of.
    """

    def __init__(self, settings: TransportSettings) -> None:
        if settings.tls is not None:
            raise AddressUnavailable("--transport native: speaks no TLS; use --transport grpcio")
        self._settings = settings
        self._methods: list[tuple[str, Method]] = [
            (f"/{service}/{method.name}", method)
            for service, methods in settings.services.items()
            for method in methods
        ]
        self._guarded: list[GuardedMany] = [
            guard_many(method, settings.metrics, settings.access_log) for _, method in self._methods
        ]
        self._health = NativeHealth(settings.services, first_method=len(self._methods))
        self._front: Any = None
        self._fallback: _ReflectionServer | None = None
        self._receiving = threading.Lock()
        self._state = threading.Lock()
        self._backlog: deque[_Pending] = deque()
        self._working = 0
        self._active: set[int] = set()
        self._threads: list[threading.Thread] = []

    def bind(self, address: str) -> str:
        """Take the address; see `Transport`."""
        methods = [(path, False) for path, _ in self._methods] + self._health.methods
        try:
            self._front = NativeGrpcFront(
                address, methods, io_threads=1, call_details=True, reuse_port=self._settings.shares_port
            )
            port = self._front.bound_port
        except (RuntimeError, ValueError, OSError) as error:
            raise AddressUnavailable(
                f"--address {address}: malformed, or in use by another server: choose another one"
            ) from error
        self._health.front = self._front
        if self._settings.reflection:
            self._fallback = _ReflectionServer(self._settings.services, self._settings.authorize)
            self._front.set_fallback(self._fallback.path)
        return f"{address.rpartition(':')[0]}:{port}"

    def start(self) -> None:
        """Accept connections; see `Transport`."""
        self._front.start()
        for number in range(self._settings.workers + 1):
            name = f"lowpass-worker-{number}"
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
            if batch is None:
                return
            while batch:
                self._work(batch)
                with self._state:
                    batch = self._take()
                    if not batch:
                        self._working -= 1

    def _next_batch(self) -> list[_Pending] | None:
        """Receive until there is a batch and a worker for it; None at the end."""
        while True:
            with self._state:
                if self._working < self._settings.workers and (batch := self._take()):
                    self._working += 1
                    return batch
            events = self._front.recv_batch_details(BATCH_AT_MOST)
            if events is None:
                return None
            arrival = perf_counter_ns()
            admitted = [pending for event in events if (pending := self._admit(event, arrival)) is not None]
            with self._state:
                self._backlog.extend(admitted)

    def _take(self) -> list[_Pending]:
        """The next calls to work on together: as many as share a method that answers many, else one."""
        if not self._backlog:
            return []
        batch = [self._backlog.popleft()]
        first = batch[0].method
        if self._methods[first][1].handle_many is not None:
            while self._backlog and self._backlog[0].method == first and len(batch) < BATCH_AT_MOST:
                batch.append(self._backlog.popleft())
        return batch

    def _admit(self, event: Any, arrival: int) -> _Pending | None:
        """Count a call in, or end it here; a defect ends the call, not the thread."""
        try:
            return self._count_in(event, arrival)
        except Exception:
            LOG.exception("defect in the transport")
            self._front.fail(event[1], code_pb2.INTERNAL, INTERNAL.message)
            return None

    def _count_in(self, event: Any, arrival: int) -> _Pending | None:
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
            self._fail(call_id, refuse(name, refusal, settings.metrics, arrival), request_id_of(metadata))
            return None
        if len(payload) > settings.limits.max_message_bytes:
            text = f"message of {len(payload)} bytes: send at most {settings.limits.max_message_bytes}"
            self._front.fail(call_id, code_pb2.RESOURCE_EXHAUSTED, text)
            return None
        settings.admission.enter()
        self._active.add(call_id)
        deadline = Deadline.of(monotonic(), settings.limits.max_deadline, remaining)
        is_active = partial(self._active.__contains__, call_id)
        call = Call(arrival, deadline, is_active, arrival, request_id=request_id_of(metadata))
        return _Pending(call_id, method, payload, call)

    def _fail(self, call_id: int, refusal: Refusal, request_id: str) -> None:
        status: Any = rpc_status.to_status(refusal.status)
        trailers = (*status.trailing_metadata, (HEADER, request_id))
        self._front.fail(call_id, refusal.status.code, refusal.status.message, trailers)

    def _work(self, batch: Sequence[_Pending]) -> None:
        """Answer calls of one method, and count them out."""
        method = self._methods[batch[0].method][1]
        taken_up = perf_counter_ns()
        requests, answered = [], []
        for pending in batch:
            if pending.call_id not in self._active:
                self._settings.metrics.rejected("abandoned")
                continue
            pending.call.taken_up_ns = taken_up
            try:
                requests.append(method.request.FromString(pending.payload))
                answered.append(pending)
            except DecodeError:
                self._front.fail(pending.call_id, code_pb2.INTERNAL, "the message cannot be read")
        if answered:
            found = self._guarded[batch[0].method](requests, [pending.call for pending in answered])
            for pending, outcome in zip(answered, found, strict=True):
                self._end(pending, outcome)
        for pending in batch:
            self._active.discard(pending.call_id)
            self._settings.admission.leave()

    def _end(self, pending: _Pending, outcome: Message | Refusal) -> None:
        request_id = pending.call.request_id
        if isinstance(outcome, Refusal):
            self._fail(pending.call_id, outcome, request_id)
        else:
            trailers = ((HEADER, request_id),)
            self._front.respond(pending.call_id, outcome.SerializeToString(), trailing_metadata=trailers)


class _ReflectionServer:
    """A grpcio server on a Unix socket that speaks reflection and nothing else."""

    def __init__(self, services: Any, authorize: Authorize | None) -> None:
        # Linux's abstract names leave no file behind, however the process ends.
        name = f"lowpass-{secrets.token_hex(16)}"
        self.path = f"\0{name}"
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="lowpass-reflection")
        self._server = grpc.server(self._pool, interceptors=[_Door(authorize)] if authorize is not None else [])
        self._server.add_generic_rpc_handlers((reflection.reflection_handler(services, self._pool),))
        self._server.add_insecure_port(f"unix-abstract:{name}")
        self._server.start()

    def stop(self) -> None:
        self._server.stop(0.0).wait()
        self._pool.shutdown()


class _Door(grpc.ServerInterceptor):
    """Lets only those in who may call."""

    def __init__(self, authorize: Authorize) -> None:
        self._authorize = authorize

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if self._authorize(handler_call_details.invocation_metadata) is None:
            return continuation(handler_call_details)

        def refuse(_requests: Any, context: Any) -> Any:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, str(Unauthenticated()))

        return reflection.refusing_handler(refuse)
