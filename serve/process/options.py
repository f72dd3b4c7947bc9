"""How to serve: every option of `lowpass serve`, declared once.

A field with metadata is an option: the command line, `serve.toml` and the grouped help are made from it, and a program
sets the field itself. Nothing heavy is imported here: the command sets what NumPy reads when it is imported.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serve.answers.errors import WrongOptions
from serve.answers.limits import Limits
from serve.process.cores import default_threads
from serve.transport.address import is_local, read_address

if TYPE_CHECKING:
    from export.bundle.opening import Place
    from serve.live.shadow import ShadowRule
    from serve.rpc.credentials import TlsFiles
    from serve.transport.choice import TransportName

MODELS, ADDRESSES, CALLERS = "Models", "Addresses", "Who may call"
WORK, LIMITS = "Workers and threads", "Limits"
WATCHING, STOPPING = "Watching", "Starting and stopping"
GROUPS = (MODELS, ADDRESSES, CALLERS, WORK, LIMITS, WATCHING, STOPPING)


def _option(default: Any, group: str, text: str, **rest: Any) -> Any:
    """A field that is an option.

    Args:
        default: Also says the type: a str, int, float, bool, a tuple of str, or None for the path of a file.
        group: Under which it is found in help and in `serve.toml`.
        rest: `least` and `most` of a number, `choices` of a str, a `metavar`, a `name` unlike the field's.
    """
    return field(default=default, metadata={"group": group, "help": text, **rest})


@dataclass(frozen=True)
class ServerOptions:
    """How to serve; what each field means is said by its help.

    Args:
        limits: What is accepted; its own fields are options too.

    Raises:
        WrongOptions: Some contradict each other.
    """

    repository: Place | None = _option(
        None,
        MODELS,
        "A model repository: its root, or s3://BUCKET/PREFIX (endpoint and credentials by AWS_*).",
        metavar="DIR|URL",
    )
    mirror: Path | None = _option(
        None,
        MODELS,
        "Where versions of an s3:// repository are kept on this machine, verified; a restart serves from there while"
        " the store is gone. Without it: in the user's cache.",
        metavar="DIR",
    )
    mirror_spare: int = _option(
        2, MODELS, "Versions that stay in the mirror although no label names them and nobody serves them.", least=0
    )
    models: tuple[str, ...] = _option(
        (),
        MODELS,
        "Serve this model, at this label or version (default: stable); repeatable, the first is the default model."
        " Without it: every model.",
        name="model",
        metavar="NAME[:LABEL]",
    )
    watch: float = _option(0.0, MODELS, "Seconds between looks at the repository for moved labels; 0: never.", least=0)
    splits: tuple[str, ...] = _option(
        (),
        MODELS,
        "Let a label answer this share of a model's requests, by user; repeatable.",
        name="split",
        metavar="MODEL:LABEL=SHARE",
    )
    shadows: tuple[str, ...] = _option(
        (),
        MODELS,
        "Let another model answer this share of a model's requests again, unseen, to measure how far both agree.",
        name="shadow",
        metavar="MODEL:OTHER[:LABEL]=SHARE",
    )
    verify: bool = _option(True, MODELS, "Read every byte of a bundle before serving it.")
    copy_up_to: int = _option(
        64,
        MODELS,
        "Read bundles of at most so many MiB into memory, where nothing done to their files harms; map larger ones.",
        least=0,
        metavar="MIB",
    )
    indexes: tuple[str, ...] = _option(
        (),
        MODELS,
        "Ask an engine for candidates instead of the bundle's own index, milvus://HOST:PORT/NAME or"
        " postgresql://HOST:PORT/DATABASE/NAME, for every model or one; 'lowpass export --to' loads it. Repeatable.",
        name="index",
        metavar="[MODEL=]URL",
    )
    index_timeout: float = _option(
        1.0, MODELS, "Longest time of a search in an engine in seconds, whatever the deadline.", least=0.001, most=600
    )
    address: str = _option("127.0.0.1:50051", ADDRESSES, "For gRPC, HOST:PORT or unix:PATH; port 0: any free one.")
    http_address: str = _option("", ADDRESSES, "The same methods as JSON over HTTP, for browsers and curl.")
    metrics_address: str = _option("127.0.0.1:9464", ADDRESSES, "For Prometheus; '' for nowhere.")
    health_address: str = _option("", ADDRESSES, "Health alone, in plain text: for probes that speak no TLS.")
    admin_address: str = _option("", ADDRESSES, "For changing models while serving; without it: not possible.")
    console_address: str = _option(
        "",
        ADDRESSES,
        "A page to look at and change what is served, for a browser; loopback, or with TLS and --admin-api-keys.",
    )
    reflection: bool = _option(True, ADDRESSES, "Offer gRPC server reflection.")
    tls_cert: Path | None = _option(None, CALLERS, "PEM certificate chain; with it, queries and admin speak TLS.")
    tls_key: Path | None = _option(None, CALLERS, "PEM private key of the certificate.")
    tls_client_ca: Path | None = _option(None, CALLERS, "PEM of who signs clients; with it, only their clients get in.")
    api_keys: Path | None = _option(None, CALLERS, "Only who shows a key of this file may ask; 'lowpass key' makes it.")
    admin_api_keys: Path | None = _option(None, CALLERS, "The same for changing models.")
    admin_open: bool = _option(
        False,
        CALLERS,
        "Let whoever reaches --admin-address change models without a key, from other machines too, or where those who"
        " only ask need one.",
    )
    workers: int = _option(
        1,
        WORK,
        "Processes that share the port and the memory of the models; one that dies is started again. A connection"
        " stays with one of them.",
        least=1,
        most=256,
    )
    worker_timeout: float = _option(
        10.0,
        WORK,
        "With several workers, one that gives no sign of life for so many seconds is ended and started again; so is"
        " one whose threads have all been at the same calls for as long beyond --max-deadline. 0: never.",
        least=0,
        most=3600,
    )
    threads: int = _option(
        default_threads(),
        WORK,
        "Threads that work on requests, in each worker; by default two for each core it may use, from 2 to 4.",
        least=1,
        most=64,
    )
    transport: TransportName = _option(
        "grpcio",
        WORK,
        "native is faster, no TLS (pip install 'lowpass[native]'); auto takes it on loopback where it can do all.",
        choices=("grpcio", "native", "auto"),
    )
    batch_wait_ms: float = _option(
        0.0,
        WORK,
        "How long native waits for more requests before it works on those that came; 0: not at all.",
        least=0,
        most=1000,
    )
    limits: Limits = field(default_factory=Limits)
    access_log: float = _option(0.0, WATCHING, "Share of the requests that leave a line in the log.", least=0, most=1)
    trace_endpoint: str = _option("", WATCHING, "Send OpenTelemetry traces to this OTLP receiver, http://HOST:4318.")
    trace_share: float = _option(
        0.01,
        WATCHING,
        "Share of the requests that leave a trace; one that comes with a sampled traceparent always does.",
        least=0,
        most=1,
    )
    jobs: Path | None = _option(None, WATCHING, "Directory of the batch jobs, shown by the console.", metavar="DIR")
    frontier: Path | None = _option(
        None,
        WATCHING,
        "What 'lowpass frontier' wrote, the directory or its frontier.json, shown by the console.",
        metavar="DIR",
    )
    ready_file: Path | None = _option(None, STOPPING, "Write the addresses here once ready.")
    drain_wait: float = _option(
        1.0,
        STOPPING,
        "Seconds between NOT_SERVING and refusing when stopping: one period of the health probe.",
        least=0,
        most=600,
    )
    grace: float = _option(
        20.0, STOPPING, "Seconds that requests in flight may still take when stopping.", least=0, most=600
    )

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise WrongOptions("--tls-cert and --tls-key go together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise WrongOptions("--tls-client-ca needs --tls-cert and --tls-key")
        if self.repository is None and (self.models or self.splits or self.shadows or self.admin_address or self.watch):
            raise WrongOptions("--model, --split, --shadow, --admin-address and --watch need --repository")
        if self.repository is None and self.indexes:
            raise WrongOptions("--index needs --repository")
        if self.mirror is not None and not isinstance(self.repository, str):
            raise WrongOptions("--mirror: is of an s3:// repository; a directory is served from where it is")
        if self.ready_file is not None and not self.ready_file.absolute().parent.is_dir():
            raise WrongOptions(f"--ready-file {self.ready_file}: its directory does not exist: make it first")
        self._check_admin()
        self._check_console()
        _read_shares("--split", self.splits, "MODEL:LABEL=SHARE, e.g. student:canary=0.05")
        _read_shares("--shadow", self.shadows, "MODEL:OTHER=SHARE, e.g. student:teacher=0.1")

    def _check_admin(self) -> None:
        """Only on loopback, and where nobody needs a key, may models be changed without one that is asked for."""
        if self.admin_open and (self.admin_api_keys is not None or not self.admin_address):
            raise WrongOptions("--admin-open needs --admin-address, and goes without --admin-api-keys")
        if not self.admin_address or self.admin_api_keys is not None or self.admin_open:
            return
        remedy = "give --admin-api-keys FILE ('lowpass key' makes it), or --admin-open if that is meant"
        read_address("--admin-address", self.admin_address)
        if not is_local(self.admin_address):
            raise WrongOptions(
                f"--admin-address {self.admin_address}: other machines reach it, and whoever does could change what is"
                f" served: {remedy}"
            )
        if self.api_keys is not None:
            raise WrongOptions(
                f"--api-keys without --admin-api-keys: asking would need a key, changing models none: {remedy}"
            )

    def _check_console(self) -> None:
        """What can change models by a browser is for this machine, or for who has a key and is sure of the server."""
        if not self.console_address:
            if self.jobs is not None or self.frontier is not None:
                raise WrongOptions("--jobs and --frontier are shown by the console: give --console-address")
            return
        read_address("--console-address", self.console_address)
        if self.workers > 1 and self.repository is None:
            raise WrongOptions("--console-address with --workers needs --repository")
        if not is_local(self.console_address) and (self.tls_cert is None or self.admin_api_keys is None):
            raise WrongOptions(
                f"--console-address {self.console_address}: other machines reach it: give --tls-cert, --tls-key and"
                " --admin-api-keys FILE ('lowpass key' makes it), or a loopback address and a tunnel (ssh -L)"
            )
        if self.api_keys is not None and self.admin_api_keys is None and not self.admin_open:
            raise WrongOptions(
                "--api-keys without --admin-api-keys: asking would need a key, changing models by the console none:"
                " give --admin-api-keys FILE ('lowpass key' makes it)"
            )

    @property
    def needs_grpcio(self) -> bool:
        """Whether the fast transport cannot do all that is asked for, or strangers may call, whom it cannot bound."""
        return self.tls_cert is not None or self.limits.max_connection_age > 0 or not is_local(self.address)

    @property
    def tls(self) -> TlsFiles | None:
        """Certificates for queries and admin; None for plain text."""
        from serve.rpc.credentials import TlsFiles

        if self.tls_cert is None or self.tls_key is None:
            return None
        return TlsFiles(self.tls_cert, self.tls_key, self.tls_client_ca)

    @property
    def split_shares(self) -> Mapping[str, Mapping[str, float]]:
        """Model → label → share of its requests."""
        shares: dict[str, dict[str, float]] = {}
        for model, label, share in _read_shares("--split", self.splits, ""):
            shares.setdefault(model, {})[label] = share
        return shares

    @property
    def shadow_rules(self) -> Mapping[str, ShadowRule]:
        """Model → who answers a share of its requests again."""
        from serve.live.shadow import ShadowRule

        rules = {}
        for model, other, share in _read_shares("--shadow", self.shadows, ""):
            shadow, _, revision = other.partition(":")
            rules[model] = ShadowRule(shadow, revision, share)
        return rules


def read_share(text: str) -> tuple[str, float]:
    """Read NAME=SHARE.

    Raises:
        WrongOptions: It is not that.
    """
    name, equals, share = text.rpartition("=")
    try:
        number = float(share)
    except ValueError:
        number = -1.0
    if not equals or not name or not 0 < number <= 1:
        raise WrongOptions(f"{text!r}: give NAME=SHARE with a share above 0, at most 1, e.g. canary=0.05")
    return name, number


def _read_shares(option: str, given: tuple[str, ...], form: str) -> list[tuple[str, str, float]]:
    found = []
    for text in given:
        name, share = read_share(text)
        model, colon, other = name.partition(":")
        if not (model and colon and other):
            raise WrongOptions(f"{option} {text}: give {form}")
        found.append((model, other, share))
    return found


def declarations() -> Iterator[dataclasses.Field[Any]]:
    """Every field that is an option, those of the limits among them, with its `group` in the metadata."""
    for each in dataclasses.fields(ServerOptions):
        if each.name == "limits":
            yield from (bound for bound in dataclasses.fields(Limits) if bound.metadata)
        else:
            yield each


def make_options(given: Mapping[str, Any]) -> ServerOptions:
    """Options from one flat mapping of field names to values.

    Raises:
        WrongOptions: Some contradict each other.
    """
    for name, value in given.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise WrongOptions(f"--{name.replace('_', '-')} {value}: give a finite number")
    bounds = {each.name for each in dataclasses.fields(Limits)}
    limits = Limits(**{name: value for name, value in given.items() if name in bounds})
    return ServerOptions(limits=limits, **{name: value for name, value in given.items() if name not in bounds})
