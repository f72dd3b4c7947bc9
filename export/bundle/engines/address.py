"""Where the items of a model are in an engine, read from a URL; credentials never leave it by a message."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from export.bundle.errors import ExportError

EngineKind = Literal["milvus", "pgvector"]
_SCHEMES: dict[str, EngineKind] = {"milvus": "milvus", "postgresql": "pgvector", "postgres": "pgvector"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
"""Room is left in the 63 bytes of a PostgreSQL name for the version, the bundle's id and what a card adds."""
MILVUS_TLS = ("secure", "server_pem_path", "ca_pem_path", "client_pem_path", "client_key_path", "server_name")
_ESCAPED = "write '/', '?', '#', '[' and '@' of a password or an option as %2F, %3F, %23, %5B and %40"
TOKEN, TOKEN_FILE = "MILVUS_TOKEN", "MILVUS_TOKEN_FILE"


@dataclass(frozen=True)
class EngineAddress:
    """An engine, and the name under which it holds a model's items.

    Args:
        kind: Which engine.
        host: Host and port as the URL has them; empty for a socket that `options` name.
        database: In it; empty for Milvus's default one.
        name: What the collections of the versions begin with, and the alias or view of the stable one.
        user: Of the URL, escaped as there, or empty.
        password: Of the URL, escaped as there, or empty; not shown.
        options: What the URL says behind `?`, as the driver names it (TLS: `sslmode`, `secure`, …).
    """

    kind: EngineKind
    host: str
    database: str
    name: str
    user: str = ""
    password: str = field(default="", repr=False)
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> EngineAddress:
        """Read a URL.

        Raises:
            ExportError: It is none of an engine's.
        """
        shown = masked(text)
        try:
            parts = urlsplit(text)
        except ValueError:  # it repeats the password, so that nothing may be chained to it
            raise ExportError(f"{shown}: is no URL: {_ESCAPED}") from None
        kind = _SCHEMES.get(parts.scheme)
        if kind is None:
            raise ExportError(f"{shown}: give milvus://HOST:PORT/NAME or postgresql://HOST:PORT/DATABASE/NAME")
        if "@" in parts.path + parts.query + parts.fragment:  # a password ended too early: its rest would be shown
            raise ExportError(f"{shown}: '@' stands behind the host: {_ESCAPED}")
        *databases, name = parts.path.strip("/").split("/")
        if len(databases) > 1 or (kind == "pgvector" and not databases) or not _is_port(parts):
            form = "milvus://HOST:PORT/[DATABASE/]NAME" if kind == "milvus" else "postgresql://HOST:PORT/DATABASE/NAME"
            raise ExportError(f"{shown}: give {form}")
        if not _NAME.fullmatch(name):
            raise ExportError(f"{shown}: name {name!r} must be letters, digits and '_', at most 32, no digit first")
        options = dict(parse_qsl(parts.query))
        if kind == "milvus" and (unknown := sorted(set(options) - set(MILVUS_TLS))):
            raise ExportError(f"{shown}: unknown option {unknown[0]!r}; there are {', '.join(MILVUS_TLS)}")
        if kind == "milvus" and not parts.hostname:
            raise ExportError(f"{shown}: names no host: give milvus://HOST:PORT/NAME")
        host = parts.netloc.rpartition("@")[2]
        return cls(kind, host, "".join(databases), name, parts.username or "", parts.password or "", options)

    @property
    def place(self) -> str:
        """The URL without who asks and how, for messages and metrics."""
        scheme = "milvus" if self.kind == "milvus" else "postgresql"
        database = f"{self.database}/" if self.database else ""
        return f"{scheme}://{self.host}/{database}{self.name}"

    @property
    def conninfo(self) -> str:
        """What libpq connects by; without a password, it looks for one in PGPASSWORD or a password file."""
        who = self.user + (f":{self.password}" if self.password else "")
        netloc = f"{who}@{self.host}" if who else self.host
        options = f"?{urlencode(self.options, quote_via=quote)}" if self.options else ""  # libpq keeps a '+'
        return f"postgresql://{netloc}/{self.database}{options}"  # urlunsplit drops the // where no host is named

    @property
    def token(self) -> str:
        """Milvus's user:password or key: of the URL, else of MILVUS_TOKEN, else of the file MILVUS_TOKEN_FILE names.

        Raises:
            ExportError: The file cannot be read.
        """
        if self.user:
            return f"{unquote(self.user)}:{unquote(self.password)}"
        if path := os.environ.get(TOKEN_FILE, ""):
            try:
                return Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ExportError(f"{TOKEN_FILE} {path}: cannot be read ({error}): name a file of one line") from error
        return os.environ.get(TOKEN, "")


def masked(text: str) -> str:
    """A URL as messages show it: who asks, and how, is left out."""
    scheme, separator, rest = text.partition("://")
    place, _, options = rest.partition("?")
    place = "…" if "@" in options else place.rpartition("@")[2]  # the '?' may be a password's
    return f"{scheme}{separator}{place}" if separator else "the URL of the engine"


def collection_name(name: str, version: str, items_id: str) -> str:
    """The collection or table that holds the items of one version, and of no other.

    Args:
        name: Of the address.
        version: In the repository.
        items_id: Of the manifest: a version of another repository, or one that was made again, has another.
    """
    return f"{name}_v{version}_{items_id[:8]}"


def _is_port(parts: SplitResult) -> bool:
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False
