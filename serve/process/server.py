"""The server put together, and the order in which it starts and stops, written once.

Start: take the addresses → metrics → accept, health NOT_SERVING → load, verify, warm → admit → health SERVING.
Stop: health NOT_SERVING → wait one probe period → admit and accept nothing more → drain → close → metrics last.
Changes of models stop first, so that nothing is loaded for callers who are leaving.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from importlib import metadata
from queue import SimpleQueue

from prometheus_client import CollectorRegistry, disable_created_metrics

from export.bundle.opening import Place, open_repository
from export.bundle.versions import STABLE
from serve.answers.admission import Admission
from serve.answers.fake import fake_model
from serve.answers.indexes.faiss_index import limit_native_threads
from serve.console.access import Access
from serve.console.server import ConsoleServer
from serve.live.engines import Engines
from serve.live.manager import ModelManager
from serve.live.shadow import Shadow
from serve.live.store import ModelStore, ServedModel
from serve.process.admin import admin_settings, looking_settings
from serve.process.lifecycle import ADDRESSES, announce, stop_signals
from serve.process.options import ServerOptions
from serve.process.worker_calls import looking_at
from serve.rpc.admin import ADMIN_SERVICE, LOOKS, ModelAdminService
from serve.rpc.credentials import authorizer, certificate_ends
from serve.rpc.services import SERVICE, AnyMethod, RecommenderService
from serve.telemetry.endpoint import MetricsEndpoint
from serve.telemetry.logs import AccessLog, log_to_stderr
from serve.telemetry.metrics import Metrics
from serve.telemetry.telemetry import Telemetry
from serve.telemetry.traces import open_tracing
from serve.transport.address import is_local, read_address, split_address
from serve.transport.base import MakeTransport, Transport, TransportSettings
from serve.transport.choice import choose_transport
from serve.transport.http_connection import HttpBounds
from serve.transport.http_gateway import Gateway
from serve.transport.http_server import HttpServer

LOG = logging.getLogger("lowpass.serve")


class Server:
    """One process that serves.

    Args:
        transport: Makes the transport; None for the one that the options name.

    Attributes:
        address: Of gRPC, once started.
        metrics_address: Of Prometheus, once started.
        admin_address: Where models are changed, once started; empty for nowhere.
        health_address: Of health alone, once started; empty for nowhere.
        http_address: Of JSON over HTTP, once started; empty for nowhere.
        console_address: Of the page for operators, once started; empty for nowhere.
        transport_name: Of the transport that the options chose.
    """

    def __init__(self, options: ServerOptions, transport: MakeTransport | None = None) -> None:
        self.transport_name = ""
        if transport is None:
            self.transport_name, transport = choose_transport(options.transport, needs_grpcio=options.needs_grpcio)
        self.address = self.metrics_address = self.admin_address = self.health_address = self.http_address = ""
        self.console_address = ""
        self.is_serving = False
        self.store = ModelStore()
        limits = options.limits
        self.admission = Admission(limits.max_in_flight, max_wait=limits.max_wait, threads=options.threads)
        self.metrics = Metrics(CollectorRegistry())
        self.metrics.watch_in_flight(lambda: self.admission.in_flight)
        if options.tls is not None:
            self.metrics.watch_certificates(certificate_ends(options.tls))
        self._options = options
        tracing = open_tracing(options.trace_endpoint, options.trace_share)
        self._telemetry = Telemetry(self.metrics, AccessLog(options.access_log), tracing)
        self._shadow = Shadow(self.store, self.metrics.shadow, self._is_busy, limit_native_threads)
        self._engines = Engines(
            options.indexes, self.metrics, timeout=options.index_timeout, connections=options.threads
        )
        self._manager = None if options.repository is None else self._manage(options.repository)
        service = self._service()
        self._make = transport
        self._transport = transport(self._query_settings(service))
        self._admin: Transport | None = None
        self._looks: Transport | None = None
        if self._manager is not None and options.admin_address:
            self._admin = transport(admin_settings(options, self._admin_service(self._manager), self.metrics))
        self._health = transport(self._health_settings()) if options.health_address else None
        self._http = self._gateway(service) if options.http_address else None
        self._console = self._open_console() if options.console_address else None
        self._endpoint: MetricsEndpoint | None = None

    def _service(self) -> RecommenderService:
        # Streamed batches hold threads for long: half of them, so that other callers find one.
        max_streams = max(1, self._options.threads // 2)
        version = metadata.version("lowpass")
        return RecommenderService(
            self.store, self._options.limits, self.metrics, version, self._shadow, max_streams=max_streams
        )

    def _is_busy(self) -> bool:
        return self.admission.in_flight > self._options.threads

    def _manage(self, repository: Place) -> ModelManager:
        options = self._options
        opened = open_repository(
            repository, mirror=options.mirror, spare=options.mirror_spare, serves=True, say=LOG.warning
        )
        return ModelManager(
            opened,
            self._options.models,
            self.store,
            self.metrics,
            verify=self._options.verify,
            copy_up_to=self._options.copy_up_to << 20,
            engines=self._engines,
            prepare_thread=limit_native_threads,
        )

    def _query_settings(self, service: RecommenderService) -> TransportSettings:
        options = self._options
        return TransportSettings(
            services={SERVICE: service.methods()},
            admission=self.admission,
            limits=options.limits,
            telemetry=self._telemetry,
            threads=options.threads,
            batch_wait=options.batch_wait_ms / 1000,
            shares_port=options.workers > 1,
            reflection=options.reflection,
            prepare_thread=limit_native_threads,
            authorize=authorizer(options.api_keys),
            tls=options.tls,
        )

    def _admin_service(self, manager: ModelManager) -> ModelAdminService:
        return ModelAdminService(manager, self._shadow)

    def _gateway(self, service: RecommenderService) -> HttpServer:
        options = self._options
        gateway = Gateway(
            service.methods(),
            self.admission,
            options.limits,
            self._telemetry,
            authorizer(options.api_keys),
            lambda: self.is_serving,
        )
        return HttpServer(
            gateway,
            HttpBounds(body_bytes=options.limits.max_message_bytes),
            options.threads,
            limit_native_threads,
            options.tls,
            shares_port=options.workers > 1,
        )

    def _open_console(self) -> ConsoleServer:
        options = self._options
        return ConsoleServer(
            self._asking,
            () if self._manager is None else self._admin_service(self._manager).methods(),
            self.metrics,
            options.limits,
            Access(options.api_keys, options.admin_api_keys),
            is_serving=lambda: self.is_serving,
            is_local=is_local(options.console_address),
            tls=options.tls,
            jobs=options.jobs,
            frontier=options.frontier,
            prepare_thread=limit_native_threads,
        )

    def _asking(self, metrics: Metrics) -> tuple[AnyMethod, ...]:
        """Methods for who tries the models: counted in `metrics`, and answered by no shadow again."""
        version = metadata.version("lowpass")
        return RecommenderService(self.store, self._options.limits, metrics, version).methods()

    def _health_settings(self) -> TransportSettings:
        return TransportSettings(
            services={SERVICE: ()},
            admission=Admission(0),
            limits=self._options.limits,
            telemetry=Telemetry(self.metrics),
            threads=1,
            shares_port=self._options.workers > 1,
            reflection=False,
        )

    def open_admin(self, socket: str) -> None:
        """Let a supervisor change models and look at them, on sockets that nobody else reaches: without keys or TLS.

        Args:
            socket: unix:PATH of the one to change them; see `looking_at`.
        """
        if self._manager is None:
            return
        service = self._admin_service(self._manager)
        settings = admin_settings(self._options, service, self.metrics)
        self._admin = self._open(socket, replace(settings, authorize=None, tls=None))
        unseen = Metrics(CollectorRegistry())
        listing = tuple(each for each in service.methods() if each.name == LOOKS)
        settings = looking_settings(self._options, {SERVICE: self._asking(unseen), ADMIN_SERVICE: listing}, unseen)
        self._looks = self._open(looking_at(socket), replace(settings, prepare_thread=limit_native_threads))

    def _open(self, socket: str, settings: TransportSettings) -> Transport:
        opened = self._make(settings)
        opened.bind(socket)
        opened.start()
        opened.set_serving(True)
        return opened

    @property
    def is_stuck(self) -> bool:
        """Whether every thread is at a call that should have ended: no call lasts longer than its deadline."""
        limits, threads = self._options.limits, self._options.threads
        # A stream may last longer, and has half of the threads at most; a single thread it has alone.
        longest = limits.max_deadline if threads > 1 else max(limits.max_deadline, limits.max_stream_deadline)
        return self.admission.standstill > longest

    def start(self) -> None:
        """Start, and return when ready.

        Raises:
            StartupError: An address, the repository or a bundle is unusable.
            BundleError: A bundle is wrong.
        """
        try:
            self._accept()
            self.prepare()
            if self._manager is not None:
                self._manager.give_way()
            if self._admin is not None and self.admin_address:
                self._admin.start()
                self._admin.set_serving(True)
        except BaseException:
            self._close(grace=0.0)
            raise

    def prepare(self) -> None:
        """Load and admit, unless that is done; called before `start` where only who can answer may accept.

        Raises:
            StartupError: The repository or a bundle is unusable.
            BundleError: A bundle is wrong.
        """
        if not self.is_serving:
            self._load()
            self.admission.open()
            self._set_serving(True)

    def _accept(self) -> None:
        options = self._options
        read_address("--address", options.address)
        self.address = self._transport.bind(options.address)
        if options.metrics_address:
            host, port = split_address("--metrics-address", options.metrics_address)
            self._endpoint = MetricsEndpoint(host, port, self.metrics.registry)
            self.metrics_address = self._endpoint.address
        if self._admin is not None and options.admin_address:
            split_address("--admin-address", options.admin_address)
            self.admin_address = self._admin.bind(options.admin_address)
        if self._health is not None:
            split_address("--health-address", options.health_address)
            self.health_address = self._health.bind(options.health_address)
            self._health.start()
        if self._http is not None:
            self.http_address = self._http.bind(options.http_address)
            self._http.start()
        if self._console is not None:
            self.console_address = self._console.bind(options.console_address)
            self._console.start()
        self._transport.start()

    def _set_serving(self, serving: bool) -> None:
        self.is_serving = serving
        self._transport.set_serving(serving)
        if self._health is not None:
            self._health.set_serving(serving)

    def stop(self) -> bool:
        """Stop in order; returns whether everything in flight ended in time."""
        self._set_serving(False)
        time.sleep(self._options.drain_wait)
        return self._close(self._options.grace)

    def _close(self, grace: float) -> bool:
        if self._console is not None:
            self._console.stop()
        for private in (self._admin, self._looks):
            if private is not None:
                private.stop(0.0)
        self._shadow.stop()
        if self._manager is not None:
            self._manager.stop()
        self.admission.close()
        drained = self._transport.stop(grace)
        if self._http is not None:
            self._http.stop(grace)
        if self._health is not None:
            self._health.stop(0.0)
        self._engines.close()
        self._telemetry.stop()
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
        for name, shares in self._options.split_shares.items():
            self._manager.set_split(name, shares)
        for name, rule in self._options.shadow_rules.items():
            self._shadow.set_rule(name, rule)
        if self._options.watch:
            self._manager.watch(self._options.watch)


def run(options: ServerOptions) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit code.

    Raises:
        StartupError: An address, the repository or a bundle is unusable.
        BundleError: A bundle is wrong.
    """
    # One more series per child, which no query here needs.
    disable_created_metrics()  # type: ignore[no-untyped-call]  # not annotated there
    stops: SimpleQueue[str] = SimpleQueue()
    with log_to_stderr() as log:
        server = Server(options)
        server.metrics.watch_log(lambda: log.dropped)
        server.start()
        with stop_signals(stops.put):
            addresses = {name: getattr(server, name) for name in ADDRESSES}
            models = [f"{model.summary.name}:{model.summary.version}" for model in server.store.models]
            announce(options, {**addresses, "models": models, "transport": server.transport_name})
            return stop_in_order(server, stops.get())


def stop_in_order(server: Server, reason: str) -> int:
    """Stop, with a line in the log before and after; returns the exit code.

    Args:
        server: Started.
        reason: Why it stops.
    """
    LOG.info("stopping", extra={"fields": {"signal": reason, "in_flight": server.admission.in_flight}})
    drained = server.stop()
    LOG.info("stopped", extra={"fields": {"drained": drained, "handled": server.metrics.handled()}})
    return 0 if drained else 1
