"""The console of a supervisor: it shows and changes all workers, and what it tries, one of them answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from prometheus_client import CollectorRegistry

from serve.answers.call import Call
from serve.console.access import Access
from serve.console.server import ConsoleServer
from serve.process.options import ServerOptions
from serve.process.workers_admin import WorkersAdmin
from serve.rpc.pb.lowpass.v1 import recommender_pb2
from serve.rpc.services import SERVICE, Method
from serve.telemetry.metrics import Metrics
from serve.transport.address import is_local


class ConsoleFront:
    """The console's address; held from the start, open to browsers once the workers serve.

    Args:
        service: Lists and changes the models of all workers, and lets one of them answer.
        series: Of all workers.
        is_serving: What health says.

    Raises:
        StartupError: The address, its keys, certificates or the frontier are unusable.
    """

    def __init__(
        self, options: ServerOptions, service: WorkersAdmin, series: CollectorRegistry, is_serving: Callable[[], bool]
    ) -> None:
        self._console = ConsoleServer(
            lambda _: answered_by_one(service),
            service.methods(),
            # Workers count the changes.
            Metrics(CollectorRegistry()),
            options.limits,
            Access(options.api_keys, options.admin_api_keys),
            is_serving=is_serving,
            is_local=is_local(options.console_address),
            tls=options.tls,
            jobs=options.jobs,
            frontier=options.frontier,
            series=series,
        )
        self._address = self._console.bind(options.console_address)

    def open(self) -> str:
        """Let browsers in; returns the address."""
        self._console.start()
        return self._address

    def close(self) -> None:
        """Show nothing more."""
        self._console.stop()


def answered_by_one(service: WorkersAdmin) -> tuple[Method, ...]:
    """The methods of the recommender service that do not stream, each answered by a worker."""
    described = recommender_pb2.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]].methods
    return tuple(_passed_on(each, service) for each in described if not each.server_streaming)


def _passed_on(described: Any, service: WorkersAdmin) -> Method:
    def handle(request: Message, call: Call) -> Message:
        return service.ask_one(method, request, call)

    method = Method(
        described.name, GetMessageClass(described.input_type), GetMessageClass(described.output_type), handle
    )
    return method
