"""Several generating processes as one: each has a connection and users of its own, all ask at the same time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc

from export.bundle import open_bundle
from serve.bench.closed_loop import connect
from serve.bench.errors import LoadTestError
from serve.bench.loops import OpenPlan, run_closed_window, run_open_loop
from serve.bench.window import Window, side_by_side
from serve.bench.workload import Workload


@dataclass(frozen=True)
class Asking:
    """How to ask for one window; exactly one of `rate` and `in_flight` is set.

    Attributes:
        seconds: Its length.
        rate: Requests a second in all.
        in_flight: Requests in flight in all.
        seed: Of the arrivals.
    """

    seconds: float
    rate: float | None = None
    in_flight: int | None = None
    seed: int = 0


class Generator:
    """Processes that ask one server; a context manager.

    Args:
        target: Address of the server, host:port.
        bundle: Bundle whose users ask, or None where `users` does.
        workload: What is asked.
        processes: How many.
        users: Ids of users who ask, instead of the bundle's.
    """

    def __init__(
        self, target: str, bundle: Path | None, workload: Workload, processes: int = 1, users: Sequence[str] = ()
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self.target = target
        self._ends: list[Connection] = []
        self._children = []
        for number in range(processes):
            ours, theirs = context.Pipe()
            arguments = (theirs, target, bundle, workload, number, tuple(users))
            child = context.Process(target=_work, args=arguments, daemon=True)
            child.start()
            self._ends.append(ours)
            self._children.append(child)

    def __enter__(self) -> Self:
        for end in self._ends:
            self._receive(end)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self._children:
            child.terminate()
        for child in self._children:
            child.join()

    def run(self, asking: Asking) -> Window:
        """Ask for one window.

        Raises:
            LoadTestError: The server cannot be reached, or a process died.
        """
        count = len(self._ends)
        for number, end in enumerate(self._ends):
            in_flight = None
            if asking.in_flight is not None:
                in_flight = asking.in_flight // count + (number < asking.in_flight % count)
            rate = None if asking.rate is None else asking.rate / count
            end.send(Asking(asking.seconds, rate, in_flight, asking.seed * count + number))
        windows = [window for end in self._ends if (window := self._receive(end)) is not None]
        return side_by_side(windows)

    def _receive(self, end: Connection) -> Window | None:
        try:
            found = end.recv()
        except EOFError as error:
            raise LoadTestError("a generating process died; see its message above") from error
        if isinstance(found, LoadTestError):
            raise found
        return found if isinstance(found, Window) else None


def _work(
    end: Connection, target: str, bundle: Path | None, workload: Workload, number: int, users: Sequence[str]
) -> None:
    own = replace(workload, seed=workload.seed * 1000 + number)
    try:
        payloads = own.payloads(_user_ids(bundle, users))
        with connect(target) as channel:
            end.send("ready")
            while True:
                end.send(_ask(end.recv(), channel, payloads))
    except LoadTestError as error:
        end.send(error)
    except (EOFError, KeyboardInterrupt):
        return


def _ask(asking: Asking, channel: grpc.Channel, payloads: Iterator[bytes]) -> Window | str:
    if asking.rate is not None:
        return run_open_loop(OpenPlan(asking.rate, asking.seconds, seed=asking.seed), payloads, channel)
    if asking.in_flight:
        return run_closed_window(channel, payloads, in_flight=asking.in_flight, seconds=asking.seconds)
    return "idle"


def _user_ids(bundle: Path | None, users: Sequence[str]) -> Sequence[str]:
    if users or bundle is None:
        return users
    ids = open_bundle(bundle, verify=False).user_ids
    return ids.take(range(len(ids)))
