"""The console put together on an address of its own.

It depends on the methods of two services, on the series, and on nothing else of the server. What it asks the
recommender is not traffic: it is counted elsewhere, and no shadow answers it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic, perf_counter_ns
from typing import Any

from prometheus_client import CollectorRegistry

from serve.answers.admission import Admission, Deadline
from serve.answers.call import Call
from serve.answers.errors import RequestError
from serve.answers.limits import Limits
from serve.console.access import Access
from serve.console.application import API, Console
from serve.console.conditions import Condition, conditions
from serve.console.frontier import UnusableFrontier, read_frontier
from serve.console.history import PERIOD, History, as_columns
from serve.console.jobs import MOST_RUNS, read_jobs
from serve.rpc.admin import LOOKS
from serve.rpc.credentials import TlsFiles
from serve.rpc.pb.lowpass.v1 import admin_pb2
from serve.rpc.services import AnyMethod, Method
from serve.rpc.status import Refusal
from serve.telemetry.logs import AccessLog
from serve.telemetry.metrics import Metrics
from serve.telemetry.telemetry import Telemetry
from serve.transport.http_connection import HttpBounds
from serve.transport.http_gateway import Gateway, path_of
from serve.transport.http_server import HttpServer

THREADS, LOOKING, CHANGING = 4, 16, 2
"""Threads; requests in flight that look, and that change: a change may load for minutes, and leaves threads to look."""
CHANGE_SECONDS = 3600.0
BOUNDS = HttpBounds(body_bytes=1 << 20, connections=64, held_bytes=8 << 20)


class ConsoleServer:
    """The page and its interface.

    Args:
        asking: Makes the methods of the recommender service, which count in the series they are given.
        admin: Methods of the admin service; empty where nothing can be changed.
        metrics: The server's own: where changes are counted, and what is shown.
        access: Who may look, and who change.
        is_serving: What health says.
        is_local: Whether only this machine reaches the address.
        jobs: Directory of the batch jobs; None for none.
        frontier: Document of a frontier; None for none.
        prepare_thread: Called once in each thread that works on requests.
        series: What is shown in place of `metrics`.

    Raises:
        UnusableFrontier: The document is none.
    """

    def __init__(
        self,
        asking: Callable[[Metrics], Sequence[AnyMethod]],
        admin: Sequence[Method],
        metrics: Metrics,
        limits: Limits,
        access: Access,
        *,
        is_serving: Callable[[], bool],
        is_local: bool,
        tls: TlsFiles | None = None,
        jobs: Path | None = None,
        frontier: Path | None = None,
        prepare_thread: Callable[[], None] | None = None,
        period: float = PERIOD,
        series: CollectorRegistry | None = None,
    ) -> None:
        if frontier is not None:
            read_frontier(frontier)
        self._history = History(metrics.registry if series is None else series, period)
        self._listing = next((each for each in admin if each.name == LOOKS), None)
        self._is_serving, self._jobs, self._frontier = is_serving, jobs, frontier
        changes = _changing([each for each in admin if each.name != LOOKS], metrics, limits)
        application = Console(
            methods=self._looks(asking, limits) | changes,
            changes=frozenset(changes),
            documents={
                f"{API}overview": self._overview,
                f"{API}jobs": lambda _: {"configured": jobs is not None, "jobs": self._read_jobs()},
                f"{API}frontier": lambda _: self._read_frontier(),
            },
            access=access,
            scheme="http" if tls is None else "https",
            is_local=is_local,
            refused=lambda: metrics.rejected("unauthenticated"),
        )
        self._http = HttpServer(application, BOUNDS, THREADS, prepare_thread, tls, option="--console-address")

    def _looks(self, asking: Callable[[Metrics], Sequence[AnyMethod]], limits: Limits) -> dict[str, Gateway]:
        """What asks and changes nothing, counted where nobody looks."""
        unseen = Metrics(CollectorRegistry())
        methods = [*asking(unseen), *([self._listing] if self._listing is not None else [])]
        return _looking(methods, unseen, limits)

    def bind(self, address: str) -> str:
        """Take the address; returns the one really bound.

        Raises:
            AddressUnavailable: It is malformed, or somebody else has it.
            UnusableCredentials: The certificates are missing or wrong.
        """
        return self._http.bind(address)

    def start(self) -> None:
        """Accept connections, and begin to remember."""
        self._history.start()
        self._http.start()

    def stop(self) -> None:
        """Close at once: nobody depends on a page."""
        self._http.stop(0.0)
        self._history.stop()

    def _overview(self, may_change: bool) -> dict[str, Any]:
        moments = self._history.moments
        versions, unreadable = self._versions()
        found = conditions(versions, self._history.read(), moments, self._read_jobs(1), is_serving=self._is_serving())
        return {
            "serving": self._is_serving(),
            "may_change": may_change and self._listing is not None,
            "has": {"jobs": self._jobs is not None, "frontier": self._frontier is not None},
            "period": self._history.period,
            "conditions": [asdict(each) for each in [*unreadable, *found]],
            "history": as_columns(moments),
        }

    def _versions(self) -> tuple[list[admin_pb2.ModelVersion], list[Condition]]:
        """Every version; or, where the repository cannot be read, that."""
        if self._listing is None:
            return [], []
        now = perf_counter_ns()
        call = Call(now, Deadline.of(monotonic(), CHANGE_SECONDS, None), lambda: True, now)
        try:
            answer: Any = self._listing.handle(admin_pb2.ListModelsRequest(), call)
        except (RequestError, Refusal) as error:
            return [], [Condition("bad", f"Models cannot be listed: {error}", "What is loaded goes on answering.")]
        return list(answer.versions), []

    def _read_jobs(self, runs: int = MOST_RUNS) -> list[dict[str, Any]]:
        return [] if self._jobs is None else read_jobs(self._jobs, runs)

    def _read_frontier(self) -> dict[str, Any]:
        if self._frontier is None:
            return {"configured": False}
        try:
            return {"configured": True, "document": read_frontier(self._frontier)}
        except UnusableFrontier as error:
            return {"configured": True, "error": str(error)}


def _looking(methods: Sequence[AnyMethod], unseen: Metrics, limits: Limits) -> dict[str, Gateway]:
    return _by_path(methods, Telemetry(unseen), replace(limits, max_in_flight=LOOKING))


def _changing(methods: Sequence[AnyMethod], metrics: Metrics, limits: Limits) -> dict[str, Gateway]:
    bounds = replace(limits, max_in_flight=CHANGING, max_deadline=CHANGE_SECONDS)
    return _by_path(methods, Telemetry(metrics, AccessLog(1.0)), bounds)


def _by_path(methods: Sequence[AnyMethod], telemetry: Telemetry, limits: Limits) -> dict[str, Gateway]:
    admission = Admission(limits.max_in_flight)
    admission.open()
    gateway = Gateway(methods, admission, limits, telemetry, None, lambda: True)
    return {path_of(each.name): gateway for each in methods}
