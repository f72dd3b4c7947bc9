"""Options that commands share: how a server is reached, and how the answer is printed."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
KEY_VARIABLE = "LOWPASS_API_KEY"


def read_place(text: str) -> str | Path:
    """A directory, as a path, or `s3://BUCKET/PREFIX`, as text; that is looked at where it is opened.

    Nothing is imported to tell them apart: what serves must set what NumPy reads first.
    """
    if text.lower().startswith("s3://"):
        return text
    if Path(text).is_file():
        raise click.BadParameter(f"{text}: is a file; give a directory, or s3://BUCKET/PREFIX")
    return Path(text)


@dataclass(frozen=True)
class Connection:
    """A server, and what to show it.

    Attributes:
        target: `host:port`, or any gRPC target.
        timeout: Deadline of each call, in seconds.
        tls_ca: PEM of who signs the server; None for plain text.
        tls_cert: PEM chain of this client; None for none.
        tls_key: PEM private key of that.
        api_key: Empty for none.
    """

    target: str
    timeout: float
    tls_ca: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    api_key: str

    def arguments(self) -> dict[str, Any]:
        """Arguments of a client."""
        return {
            "target": self.target,
            "timeout": self.timeout,
            "api_key": self.api_key,
            "credentials": self._credentials(),
        }

    def _credentials(self) -> Any:
        if self.tls_ca is None:
            return None
        import grpc

        read = [None if path is None else path.read_bytes() for path in (self.tls_ca, self.tls_key, self.tls_cert)]
        return grpc.ssl_channel_credentials(*read)


def connection_options(target: str, timeout: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options that become one argument `connection`.

    Args:
        target: Default address.
        timeout: Default deadline, in seconds.
    """

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def gather(
            target: str,
            timeout: float,
            tls_ca: Path | None,
            tls_cert: Path | None,
            tls_key: Path | None,
            api_key_file: Path | None,
            **rest: Any,
        ) -> Any:
            if (tls_cert is None) != (tls_key is None) or (tls_cert is not None and tls_ca is None):
                raise click.UsageError("--tls-cert and --tls-key go together, and with --tls-ca")
            key = api_key_file.read_text(encoding="utf-8").strip() if api_key_file else os.environ.get(KEY_VARIABLE, "")
            return command(connection=Connection(target, timeout, tls_ca, tls_cert, tls_key, key), **rest)

        for option in (
            click.option(
                "--api-key-file", type=FILE, help=f"Holds the API key; without it, {KEY_VARIABLE} of the environment."
            ),
            click.option("--tls-key", type=FILE, help="PEM private key of this client's certificate."),
            click.option("--tls-cert", type=FILE, help="PEM certificate chain of this client, for mutual TLS."),
            click.option("--tls-ca", type=FILE, help="PEM of who signs the server; with it, TLS is spoken."),
            click.option(
                "--timeout", type=click.FloatRange(0.001), default=timeout, show_default=True, help="Seconds."
            ),
            click.option("--target", default=target, show_default=True, help="Where the server is."),
        ):
            gather = option(gather)
        return gather

    return add
