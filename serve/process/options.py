"""How to serve: options and addresses.

What a server accepts, as options of a command.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from serve.answers.limits import Limits
from serve.live.shadow import ShadowRule
from serve.rpc.credentials import TlsFiles
from serve.transport.choice import TransportName


@dataclass(frozen=True)
class ServerOptions:
    """How to serve.

    Args:
        repository: Root of a model repository; None serves the fake model.
        models: `NAME` or `NAME:VERSION-OR-LABEL`, the default first; empty for every model.
        address: For gRPC.
        metrics_address: For Prometheus; empty for nowhere.
        admin_address: For changing what is served; empty for none.
        watch: Seconds between looks at the repository for moved labels; 0 for never.
        splits: Model → label → share of its requests.
        shadows: Model → who answers a share of its requests again.
        http_address: For the same methods as JSON over HTTP; empty for none.
        health_address: Another one for health alone, in plain text and without keys; empty for none.
        tls: Certificates for queries and admin; None for plain text.
        api_keys: File of the keys that may ask; None lets everybody.
        admin_api_keys: File of the keys that may change what is served; None lets everybody.
        transport: "grpcio", "native" (faster, no TLS), or "auto".
        batch_wait: How long `native` waits for more requests before it works on those that came, in seconds.
        workers: Threads that work on requests, in each process.
        processes: That serve on the same addresses; with one, nobody else can take them.
        limits: What is accepted.
        reflection: Whether to offer server reflection.
        verify: Whether to read every byte of a bundle before serving it.
        copy_up_to: A bundle of at most so many bytes is read into memory; a larger one is mapped.
        access_log: Share of the requests that leave a line in the log.
        trace_endpoint: OTLP receiver of traces, `http://HOST:PORT`; empty for none.
        trace_share: Share of the requests without a caller's trace that leave one.
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
    http_address: str = ""
    health_address: str = ""
    tls: TlsFiles | None = None
    api_keys: Path | None = None
    admin_api_keys: Path | None = None
    transport: TransportName = "grpcio"
    batch_wait: float = 0.0
    workers: int = 4
    processes: int = 1
    limits: Limits = field(default_factory=Limits)
    reflection: bool = True
    verify: bool = True
    copy_up_to: int = 64 << 20
    access_log: float = 0.0
    trace_endpoint: str = ""
    trace_share: float = 0.01
    drain_wait: float = 1.0
    grace: float = 20.0
    ready_file: Path | None = None

    @property
    def needs_grpcio(self) -> bool:
        """Whether something is asked for that the fast transport cannot do."""
        return self.tls is not None or self.limits.max_connection_age > 0


_OPTIONS = {
    "max_in_flight": click.option(
        "--max-in-flight",
        type=click.IntRange(1, 100_000),
        default=256,
        show_default=True,
        help="Requests in work or waiting, in each worker; more are refused.",
    ),
    "max_wait": click.option(
        "--max-wait",
        type=click.FloatRange(0),
        default=1.0,
        show_default=True,
        help="Longest expected wait for a thread in seconds; who would wait longer is refused. 0: no bound.",
    ),
    "max_deadline": click.option(
        "--max-deadline",
        type=click.FloatRange(0.001, 3600),
        default=10.0,
        show_default=True,
        help="Longest time of a request in seconds, whatever its own deadline.",
    ),
    "max_k": click.option(
        "--max-k", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Largest k."
    ),
    "max_batch": click.option(
        "--max-batch", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="Requests in a batch."
    ),
    "max_stream": click.option(
        "--max-stream",
        type=click.IntRange(1, 10_000_000),
        default=100_000,
        show_default=True,
        help="Requests in a streamed batch; --max-message-bytes bounds them too.",
    ),
    "max_message_bytes": click.option(
        "--max-message-bytes",
        type=click.IntRange(1024, 1 << 30),
        default=1 << 20,
        show_default=True,
        help="Largest request message.",
    ),
    "max_connection_age": click.option(
        "--max-connection-age",
        type=click.FloatRange(0),
        default=0.0,
        help="Ask callers to connect anew after so many seconds, so that they spread over servers. 0: never.",
    ),
    "max_concurrent_streams": click.option(
        "--max-concurrent-streams",
        type=click.IntRange(1, 1_000_000),
        default=1024,
        show_default=True,
        help="Requests in flight on one connection; a client holds back more.",
    ),
}


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command options that become one argument `limits`, a function that makes them.

    It is called after the command has set what must be set before NumPy is imported.
    """

    @functools.wraps(command)
    def gather(**rest: Any) -> Any:
        given = {name: rest.pop(name) for name in _OPTIONS}
        return command(limits=functools.partial(_make, given), **rest)

    for option in reversed(_OPTIONS.values()):
        gather = option(gather)
    return gather


def _make(given: dict[str, Any]) -> Limits:
    from serve.answers.limits import Limits

    return Limits(default_k=min(Limits.default_k, given["max_k"]), **given)
