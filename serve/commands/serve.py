"""`lowpass serve` and `lowpass key`; nothing heavy is imported until a command runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve.process.options import limit_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.answers.limits import Limits
    from serve.live.shadow import ShadowRule
    from serve.rpc.credentials import TlsFiles


FILE = click.Path(path_type=Path, dir_okay=False)


def read_shares(
    _context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> tuple[tuple[str, float], ...]:
    """Read `NAME=SHARE` as pairs."""
    pairs = []
    for text in given:
        name, equals, share = text.rpartition("=")
        try:
            number = float(share)
        except ValueError:
            number = -1.0
        if not equals or not name or not 0 < number <= 1:
            raise click.BadParameter(
                f"{text!r}: give NAME=SHARE with a share above 0, at most 1, e.g. canary=0.05", param=parameter
            )
        pairs.append((name, number))
    return tuple(pairs)


@click.command()
@click.option("--repository", type=click.Path(path_type=Path), help="Root of a model repository.")
@click.option("--fake", is_flag=True, help="Serve a made-up model instead, to try a client.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME[:LABEL]",
    help="Serve this model, at this label or version (default: stable); repeatable, the first is the default"
    " model. Without it: every model.",
)
@click.option("--address", default="127.0.0.1:50051", show_default=True, help="For gRPC; port 0: any free one.")
@click.option("--metrics-address", default="127.0.0.1:9464", show_default=True, help="For Prometheus.")
@click.option("--http-address", default="", help="The same methods as JSON over HTTP, for browsers and curl.")
@click.option("--health-address", default="", help="Health alone, in plain text: for probes that speak no TLS.")
@click.option("--tls-cert", type=FILE, help="PEM certificate chain; with it, queries and admin speak TLS.")
@click.option("--tls-key", type=FILE, help="PEM private key of the certificate.")
@click.option("--tls-client-ca", type=FILE, help="PEM of who signs clients; with it, only their clients get in.")
@click.option("--api-keys", type=FILE, help="Only who shows a key of this file may ask; 'lowpass key' makes it.")
@click.option("--admin-api-keys", type=FILE, help="The same for changing models.")
@click.option("--admin-address", default="", help="For changing models while serving; without it: not possible.")
@click.option(
    "--watch",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="Seconds between looks at the repository for moved labels; 0: never.",
)
@click.option(
    "--split",
    "splits",
    callback=read_shares,
    multiple=True,
    metavar="MODEL:LABEL=SHARE",
    help="Let a label answer this share of a model's requests, by user; repeatable.",
)
@click.option(
    "--shadow",
    "shadows",
    callback=read_shares,
    multiple=True,
    metavar="MODEL:OTHER[:LABEL]=SHARE",
    help="Let another model answer this share of a model's requests again, unseen, to measure how far both agree.",
)
@click.option(
    "--transport",
    type=click.Choice(["grpcio", "native", "auto"]),
    default="grpcio",
    show_default=True,
    help="native is faster and speaks no TLS (pip install 'lowpass[native]'); auto takes it where it can do all asked.",
)
@click.option(
    "--batch-wait-ms",
    type=click.FloatRange(0, 1000),
    default=0.0,
    help="How long native waits for more requests before it works on those that came.  [default: it does not]",
)
@click.option(
    "--workers",
    "processes",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Processes that share the port and the memory of the models; one that dies is started again. A connection"
    " stays with one of them. With several, models change by 'lowpass label set' and --watch, not by --admin-address.",
)
@click.option(
    "--threads",
    "workers",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="Threads that work on requests, in each worker.",
)
@click.option(
    "--access-log",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the requests that leave a line in the log.",
)
@click.option("--trace-endpoint", default="", help="Send OpenTelemetry traces to this OTLP receiver, http://HOST:4318.")
@click.option(
    "--trace-share",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Share of the requests that leave a trace; one that comes with a sampled traceparent always does.",
)
@limit_options
@click.option(
    "--drain-wait",
    type=click.FloatRange(0, 600),
    default=1.0,
    show_default=True,
    help="Seconds between NOT_SERVING and refusing when stopping: one period of the health probe.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0, 600),
    default=20.0,
    show_default=True,
    help="Seconds that requests in flight may still take when stopping.",
)
@click.option("--reflection/--no-reflection", default=True, help="Offer gRPC server reflection.")
@click.option("--verify/--no-verify", default=True, help="Read every byte of a bundle before serving it.")
@click.option(
    "--copy-up-to",
    type=click.IntRange(0),
    default=64,
    show_default=True,
    metavar="MIB",
    help="Read bundles of at most so many MiB into memory, where nothing done to their files harms; map larger ones.",
)
@click.option(
    "--ready-file", type=click.Path(path_type=Path, dir_okay=False), help="Write the addresses here once ready."
)
def serve(
    *,
    repository: Path | None,
    fake: bool,
    models: tuple[str, ...],
    limits: Callable[[], Limits],
    splits: tuple[tuple[str, float], ...],
    shadows: tuple[tuple[str, float], ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_client_ca: Path | None,
    ready_file: Path | None,
    processes: int,
    **options: Any,
) -> int:
    """Answer top-k queries over gRPC, with Prometheus metrics, until SIGTERM.

    Example: lowpass serve --repository models --model student --address 127.0.0.1:50051
    """
    if fake == (repository is not None):
        raise click.UsageError("give either --repository ROOT or --fake")
    if fake and (models or splits or shadows or options["admin_address"] or options["watch"]):
        raise click.UsageError("--model, --split, --shadow, --admin-address and --watch need --repository")
    if ready_file is not None and not ready_file.absolute().parent.is_dir():
        raise click.UsageError(f"--ready-file {ready_file}: its directory does not exist: make it first")
    # Before NumPy and FAISS come in: serving threads are the parallelism, native pools would only fight them.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # One more series per child of a histogram, which no query needs; read when prometheus_client is imported.
    os.environ.setdefault("PROMETHEUS_DISABLE_CREATED_SERIES", "True")
    from serve.process.options import ServerOptions

    if processes > 1:
        from serve.process.supervisor import run
    else:
        from serve.process.server import run
    options["copy_up_to"] <<= 20
    options["batch_wait"] = options.pop("batch_wait_ms") / 1000
    options["tls"] = _read_tls(tls_cert, tls_key, tls_client_ca)
    options |= {"splits": _read_splits(splits), "shadows": _read_shadows(shadows), "ready_file": ready_file}
    return run(ServerOptions(repository=repository, models=models, limits=limits(), processes=processes, **options))


def _read_tls(certificate: Path | None, key: Path | None, client_authority: Path | None) -> TlsFiles | None:
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    if certificate is None or key is None:
        if client_authority is not None:
            raise click.UsageError("--tls-client-ca needs --tls-cert and --tls-key")
        return None
    from serve.rpc.credentials import TlsFiles

    return TlsFiles(certificate, key, client_authority)


def _read_splits(given: tuple[tuple[str, float], ...]) -> dict[str, dict[str, float]]:
    splits: dict[str, dict[str, float]] = {}
    for name, share in given:
        model, colon, label = name.partition(":")
        if not colon:
            raise click.UsageError(f"--split {name}={share:g}: give MODEL:LABEL=SHARE, e.g. student:canary=0.05")
        splits.setdefault(model, {})[label] = share
    return splits


def _read_shadows(given: tuple[tuple[str, float], ...]) -> dict[str, ShadowRule]:
    from serve.live.shadow import ShadowRule

    shadows = {}
    for name, share in given:
        model, colon, other = name.partition(":")
        if not colon:
            raise click.UsageError(f"--shadow {name}={share:g}: give MODEL:OTHER=SHARE, e.g. student:teacher=0.1")
        shadow, _, revision = other.partition(":")
        shadows[model] = ShadowRule(shadow, revision, share)
    return shadows


@click.command()
@click.argument("name")
@click.option("--file", "path", type=FILE, required=True, help="File of keys; the new one is added.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def key(name: str, path: Path, as_json: bool) -> None:
    """Make an API key for NAME: its digest goes into the file, the key itself is shown this once.

    Example: lowpass key website --file keys.txt
    """
    from export.bundle.repository import write_file
    from serve.rpc.credentials import new_key, parse_digests, read_digests

    known = read_digests(path) if path.exists() else {}
    if name in known:
        raise click.UsageError(f"{path}: has a key named {name!r}: choose another name, or remove its line first")
    if not path.absolute().parent.is_dir():
        raise click.UsageError(f"--file {path}: its directory does not exist: make it first")
    secret, line = new_key(name)
    before = path.read_text(encoding="utf-8").rstrip("\n") + "\n" if path.exists() else ""
    text = f"{before}{line}\n"
    parse_digests(text, path)
    write_file(path, text.encode())
    click.echo(json.dumps({"name": name, "key": secret}) if as_json else secret)
