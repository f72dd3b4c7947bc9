"""What a server accepts, as options of a command."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from serve.answers.limits import Limits

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
