"""Gives grpcio's calls to threads only once their requests have arrived whole.

grpcio's synchronous server hands a call to a thread when its headers have come, and the thread waits for the message:
as many callers as there are threads, each of whom never sends the last byte, would stop it for good. `WholeCalls`
stands where grpcio expects a thread pool and receives the message first, on grpcio's polling thread, as grpcio's own
code does in the thread. That reads private parts of grpcio; where another version has others (`UNDERSTOOD`), calls are
handed over as grpcio means it.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any

import grpc
from grpc import _common, _server
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # compiled, and not described

LOG = logging.getLogger("lowpass.serve")
AT_MOST = 256
"""Calls of one server that have not arrived whole; beyond, the oldest of them are refused."""
YOUNG = 0.5
"""For so long, in seconds, a call is not refused for others: its message may be there, and not have been looked at."""
LOOK = 0.25
"""Between looks at whose time is up, in seconds."""
_PARTS = ["rpc_event", "state", "behavior", "argument_thunk", "request_deserializer", "response_serializer"]
UNDERSTOOD = all(
    list(inspect.signature(getattr(_server, name, None) or (lambda: None)).parameters) == parts
    for name, parts in (
        ("_unary_response_in_pool", _PARTS),
        ("_stream_response_in_pool", _PARTS),
        ("_receive_message", ["state", "call", "request_deserializer"]),
        ("_abort", ["state", "call", "code", "details"]),
    )
)
"""Whether this grpcio has the parts that are used here."""


@dataclass(eq=False)
class GrpcioCall:
    """A call as grpcio passes it to a pool.

    Args:
        run: Runs something in the call's context.
        respond: Runs the behaviour and sends what it returns.
        behaviour: The method, as `behavior(request, context)`.
        done: For grpcio, which counts calls by it.
    """

    run: Callable[..., Any]
    respond: Callable[..., None]
    event: Any
    state: Any
    behaviour: Any
    read: Any
    write: Any
    done: Future[None] = field(default_factory=Future)

    def task(self, behaviour: Any = None) -> Callable[[], None]:
        """What a thread has to do.

        Args:
            behaviour: Instead of the call's own.
        """
        chosen = behaviour or self.behaviour
        return partial(self.run, self.respond, self.event, self.state, chosen, self._take, self.read, self.write)

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """End it with a status, unless it has ended."""
        with self.state.condition:
            if self.state.client != _server._CANCELLED and not self.state.statused:
                known = _common.STATUS_CODE_TO_CYGRPC_STATUS_CODE[code]
                _server._abort(self.state, self.event.call, known, details.encode())
        self.finish()

    def finish(self, _: object = None) -> None:
        """Let grpcio count it no longer."""
        if not self.done.done():
            self.done.set_result(None)

    def _take(self) -> Any:
        with self.state.condition:
            if self.state.client == _server._CANCELLED:
                return None
            request, self.state.request = self.state.request, None
            return request


class Arriving:
    """The calls of a server that have not arrived whole, and the thread that ends those whose time is up.

    Args:
        within: Longest time of an arrival, in seconds.
    """

    def __init__(self, within: float) -> None:
        self._within = within
        self._calls: dict[GrpcioCall, float] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, name="lowpass-arriving", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def add(self, call: GrpcioCall) -> None:
        """Its headers have come."""
        with self._lock:
            self._calls[call] = monotonic()
            surplus = self._pop_surplus()
        _refuse(surplus)

    def remove(self, call: GrpcioCall) -> None:
        """It has arrived, or its caller left."""
        with self._lock:
            self._calls.pop(call, None)

    def stop(self) -> None:
        """End the thread, and all calls."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            left = self._pop_oldest(lambda _: True)
        for call in left:
            call.end(grpc.StatusCode.UNAVAILABLE, "the server is shutting down: ask another one")

    def _look(self) -> None:
        while not self._stopped.wait(LOOK):
            with self._lock:
                late = self._pop_oldest(lambda began: began < monotonic() - self._within)
                surplus = self._pop_surplus()
            for call in late:
                text = f"the request did not arrive within {self._within:g} seconds"
                call.end(grpc.StatusCode.DEADLINE_EXCEEDED, text)
            _refuse(surplus)

    def _pop_surplus(self) -> list[GrpcioCall]:
        young = monotonic() - YOUNG
        return self._pop_oldest(lambda began: len(self._calls) > AT_MOST and began < young)

    def _pop_oldest(self, condition: Callable[[float], bool]) -> list[GrpcioCall]:
        """Take the oldest out, as long as the time of their headers fulfils a condition."""
        popped = []
        while self._calls and condition(self._calls[oldest := next(iter(self._calls))]):
            del self._calls[oldest]
            popped.append(oldest)
        return popped


def _refuse(surplus: list[GrpcioCall]) -> None:
    for call in surplus:
        call.end(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests arrive slowly, and this one for longest")


class WholeCalls(ThreadPoolExecutor):
    """Threads for calls that have arrived whole.

    Args:
        arriving: Where calls wait for their request.
        threads: How many, and what each is called and does first.
    """

    def __init__(
        self, arriving: Arriving, threads: int, name: str, prepare_thread: Callable[[], None] | None = None
    ) -> None:
        super().__init__(threads, thread_name_prefix=name, initializer=prepare_thread)
        self._arriving = arriving

    def begin(self, call: GrpcioCall) -> Future[Any]:
        """Pass a call that has arrived whole to a thread; on grpcio's polling thread."""
        return self.work_on(call.task())

    def work_on(self, task: Callable[[], Any]) -> Future[Any]:
        """Let a thread do it."""
        return super().submit(task)

    def submit(self, task: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Take a call whose headers have come."""
        if not UNDERSTOOD:
            return self.work_on(partial(task, *args, **kwargs))
        respond, event, state, behaviour, _, read, write = args
        call = GrpcioCall(task, respond, event, state, behaviour, read, write)
        receive = _server._receive_message(state, event.call, read)
        self._arriving.add(call)
        with state.condition:
            operation = cygrpc.ReceiveMessageOperation(_server._EMPTY_FLAGS)
            event.call.start_server_batch((operation,), partial(self._received, call, receive))
            state.due.add(_server._RECEIVE_MESSAGE_TOKEN)
        return call.done

    def _received(self, call: GrpcioCall, receive: Callable[[Any], Any], event: Any) -> Any:
        """The message has come, or will not; what is returned is for grpcio."""
        outcome = receive(event)
        self._arriving.remove(call)
        try:
            if call.done.done():
                pass
            elif call.state.request is not None:
                self.begin(call).add_done_callback(call.finish)
            elif call.state.client == _server._CLOSED:
                call.end(grpc.StatusCode.UNIMPLEMENTED, "the method requires exactly one request message")
            else:
                call.finish()
        except Exception:
            # Nothing may end grpcio's only polling thread.
            LOG.exception("defect in the transport")
            call.end(grpc.StatusCode.INTERNAL, "internal error")
        return outcome
