"""The server put together, and the order in which it starts and stops, written once.

Start: take the addresses → metrics → accept, health NOT_SERVING → load, verify, warm → admit → health SERVING.
Stop: health NOT_SERVING → wait one probe period → admit and accept nothing more → drain → close → metrics last.
Changes of models stop first, so that nothing is loaded for callers who are leaving.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from queue import SimpleQueue

from prometheus_client import CollectorRegistry, disable_created_metrics

from export.repository import STABLE, ModelRepository, write_file
from serve.admission import Admission
from serve.backends.faiss_index import limit_native_threads
from serve.backends.fake import fake_model
from serve.errors import AddressUnavailable
from serve.limits import Limits
from serve.logs import log_to_stderr
from serve.metrics import Metrics, MetricsEndpoint
from serve.model_manager import ModelManager
from serve.model_store import ModelStore, ServedModel
from serve.rpc.admin import ADMIN_SERVICE, ModelAdminService
from serve.rpc.services import SERVICE, RecommenderService
from serve.shadow import Shadow, ShadowRule
from serve.transport.base import Transport, TransportSettings
from serve.transport.grpcio_server import GrpcioServer

LOG = logging.getLogger("lowpass.serve")
ADMIN_IN_FLIGHT, ADMIN_SECONDS = 16, 3600.0


@dataclass(frozen=True)
class ServerOptions:
    """How to serve.

    Args:
        repository: Root of a model repository; None serves the fake model.
        models: `NAME` or `NAME:VERSION-OR-LABEL`, the default first; empty for every model.
        address: For gRPC.
        metrics_address: For Prometheus.
        admin_address: For changing what is served; empty for none.
        watch: Seconds between looks at the repository for moved labels; 0 for never.
        splits: Model → label → share of its requests.
        shadows: Model → who answers a share of its requests again.
        workers: Threads that work on requests.
        limits: What is accepted.
        reflection: Whether to offer server reflection.
        verify: Whether to read every byte of a bundle before serving it.
        drain_wait: Between NOT_SERVING and refusing, in seconds: one period of whoever probes health.
        grace: How long what is in flight may take when stopping, in seconds.
        ready_file: Where to write the addresses once ready; None for nowhere.
    """

    repository: Path | None = None
    models: Sequence[str] = ()
    address: str = "127.0.0.1:50051"
    metrics_address: str = "127.0.0.1:9464"
    admin_address: str = ""
    watch: float = 0.0
    splits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    shadows: Mapping[str, ShadowRule] = field(default_factory=dict)
    workers: int = 4
    limits: Limits = field(default_factory=Limits)
    reflection: bool = True
    verify: bool = True
    drain_wait: float = 1.0
    grace: float = 20.0
    ready_file: Path | None = None


class Server:
    """One process that serves.

    Args:
        options: How.
        transport: Makes the transport.

    Attributes:
        address: Of gRPC, once started.
        metrics_address: Of Prometheus, once started.
        admin_address: Where models are changed, once started; empty for nowhere.
    """

    def __init__(
        self, options: ServerOptions, transport: Callable[[TransportSettings], Transport] = GrpcioServer
    ) -> None:
        self.address = self.metrics_address = self.admin_address = ""
        self.store = ModelStore()
        self.metrics = Metrics(CollectorRegistry())
        self.admission = Admission(options.limits.max_in_flight)
        self.metrics.watch_in_flight(lambda: self.admission.in_flight)
        self._options = options
        self._shadow = Shadow(self.store, self.metrics.shadow, self._is_busy, limit_native_threads)
        self._manager = None if options.repository is None else self._manage(options.repository)
        service = RecommenderService(
            self.store, options.limits, self.metrics, metadata.version("lowpass"), self._shadow
        )
        self._transport = transport(
            TransportSettings(
                services={SERVICE: service.methods()},
                admission=self.admission,
                limits=options.limits,
                metrics=self.metrics,
                workers=options.workers,
                reflection=options.reflection,
                prepare_thread=limit_native_threads,
            )
        )
        self._admin = transport(self._admin_settings(self._manager)) if self._manager is not None else None
        self._endpoint: MetricsEndpoint | None = None

    def _is_busy(self) -> bool:
        return self.admission.in_flight > self._options.workers

    def _manage(self, repository: Path) -> ModelManager:
        return ModelManager(
            ModelRepository(repository),
            self._options.models,
            self.store,
            self.metrics,
            verify=self._options.verify,
            prepare_thread=limit_native_threads,
        )

    def _admin_settings(self, manager: ModelManager) -> TransportSettings:
        admission = Admission(ADMIN_IN_FLIGHT)
        admission.open()
        return TransportSettings(
            services={ADMIN_SERVICE: ModelAdminService(manager, self._shadow).methods()},
            admission=admission,
            limits=replace(self._options.limits, max_in_flight=ADMIN_IN_FLIGHT, max_deadline=ADMIN_SECONDS),
            metrics=self.metrics,
            workers=2,
            reflection=self._options.reflection,
        )

    def start(self) -> None:
        """Start, and return when ready.

        Raises:
            StartupError: An address, the repository or a bundle is unusable.
            BundleError: A bundle is wrong.
        """
        options = self._options
        try:
            host, port = _split("--metrics-address", options.metrics_address)
            _split("--address", options.address)
            self.address = self._transport.bind(options.address)
            self._endpoint = MetricsEndpoint.start(host, port, self.metrics.registry)
            self.metrics_address = self._endpoint.address
            if self._admin is not None and options.admin_address:
                _split("--admin-address", options.admin_address)
                self.admin_address = self._admin.bind(options.admin_address)
            self._transport.start()
            self._load()
            self._start_admin()
        except BaseException:
            self._close(grace=0.0)
            raise
        self.admission.open()
        self._transport.set_serving(True)

    def stop(self) -> bool:
        """Stop in order; returns whether everything in flight ended in time."""
        self._transport.set_serving(False)
        time.sleep(self._options.drain_wait)
        return self._close(self._options.grace)

    def _close(self, grace: float) -> bool:
        if self._admin is not None:
            self._admin.stop(0.0)
        self._shadow.stop()
        if self._manager is not None:
            self._manager.stop()
        self.admission.close()
        drained = self._transport.stop(grace)
        if self._endpoint is not None:
            self._endpoint.stop()
        return drained

    def _load(self) -> None:
        limit_native_threads()
        if self._manager is None:
            model = ServedModel(*fake_model())
            self.store.add(model)
            self.store.point(model.summary.name, {STABLE: model.summary.version})
            self.metrics.model_loaded(model.summary, model.load_seconds)
            return
        self._manager.start()
        for name, shares in self._options.splits.items():
            self._manager.set_split(name, shares)
        for name, rule in self._options.shadows.items():
            self._shadow.set_rule(name, rule)
        if self._options.watch:
            self._manager.watch(self._options.watch)

    def _start_admin(self) -> None:
        if self._admin is not None and self.admin_address:
            self._admin.start()
            self._admin.set_serving(True)


def run(options: ServerOptions) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    Args:
        options: How.

    Raises:
        StartupError: An address, the repository or a bundle is unusable.
        BundleError: A bundle is wrong.
    """
    log_to_stderr()
    # One more series per child, which no query here needs.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated there
    server = Server(options)
    server.start()
    # SimpleQueue.put may interrupt any code of the same thread; Event.set may not.
    stops: SimpleQueue[int] = SimpleQueue()
    signals = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, lambda got, _: stops.put(got)) for number in signals}
    try:
        _announce(options, server)
        reason = signal.Signals(stops.get()).name
        LOG.info("stopping", extra={"fields": {"signal": reason, "in_flight": server.admission.in_flight}})
        drained = server.stop()
        LOG.info("stopped", extra={"fields": {"drained": drained, "handled": server.metrics.handled()}})
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0 if drained else 1


def _announce(options: ServerOptions, server: Server) -> None:
    warnings = {
        server.address: "OPEN WITHOUT TLS: anyone who reaches this address can read requests and answers",
        server.admin_address: "OPEN WITHOUT TLS: anyone who reaches this address can change what is served",
    }
    for address, warning in warnings.items():
        if address and not _is_loopback(_split("--address", address)[0]):
            LOG.warning(warning, extra={"fields": {"address": address}})
    models = [f"{model.summary.name}:{model.summary.version}" for model in server.store.models]
    ready = {"address": server.address, "metrics_address": server.metrics_address, "models": models}
    if server.admin_address:
        ready["admin_address"] = server.admin_address
    LOG.info("ready", extra={"fields": ready})
    if options.ready_file is not None:
        write_file(options.ready_file, (json.dumps(ready) + "\n").encode())


def _split(option: str, address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise AddressUnavailable(f"{option} {address}: must be HOST:PORT, e.g. 127.0.0.1:50051")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
