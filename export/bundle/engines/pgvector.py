"""Asking pgvector: one statement a batch of vectors, over a small pool of connections that keep the caller's time.

A statement's time is bounded on both sides: by `statement_timeout` in PostgreSQL, and by the wait for its answer here,
since an engine that hangs keeps no time of its own. A connection whose answer did not come is closed. One that turns
out to be dead, as all are after a restart, is replaced within the same search.
"""

from __future__ import annotations

import logging
import math
from math import inf
from time import monotonic
from typing import Any

import numpy as np
import psycopg
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg import sql
from psycopg.errors import (
    InsufficientPrivilege,
    InvalidAuthorizationSpecification,
    QueryCanceled,
    TooManyConnections,
    UndefinedTable,
)
from psycopg_pool import ConnectionPool, PoolTimeout

from export.bundle.engines.address import EngineAddress
from export.bundle.engines.card import Card
from export.bundle.engines.engine import Found, Vectors, padded
from export.bundle.errors import EngineError

MOST = 1000
"""Largest `hnsw.ef_search`: a graph is not looked through further, and a scan is quicker than many turns."""
_LOOK_SECONDS = 0.05
"""Between two looks at whether connecting has failed, while waiting for a connection."""
_CONNECT_SECONDS = 5
for _name in ("psycopg", "psycopg.pool"):  # what goes wrong is told by the error; without a handler it goes to stderr
    logging.getLogger(_name).addHandler(logging.NullHandler())

_ASK = sql.SQL(
    "SELECT asked.place, found.id, found.score FROM unnest(%s::vector[]{cast}) WITH ORDINALITY AS asked(vector, place)"
    " CROSS JOIN LATERAL (SELECT id, -(embedding <#> asked.vector) AS score FROM {table}"
    " ORDER BY embedding <#> asked.vector LIMIT %s) AS found"
)


class TimedConnection(psycopg.Connection[Any]):
    """A connection that waits for the server no longer than it may.

    Attributes:
        give_up_at: On the monotonic clock.
        is_fresh: Whether it has been asked nothing yet.
        settings: Of the session, as the last search left them.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.give_up_at = inf
        self.is_fresh = True
        self.settings: dict[str, str] = {}

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See `psycopg.Connection.wait`."""
        if self.give_up_at < inf:
            left = max(0.0, self.give_up_at - monotonic())
            timeout = left if timeout is None else min(left, timeout)
        return super().wait(gen, interval, timeout)


class Pgvector:
    """Asks a PostgreSQL with pgvector. Thread-safe.

    Args:
        address: Where it is.
        connections: Most at a time.
    """

    most = MOST

    def __init__(self, address: EngineAddress, connections: int = 4) -> None:
        self._place = address.place
        self._failure = (0.0, "")

        class Noting(TimedConnection):
            @classmethod
            def connect(cls, *arguments: Any, **named: Any) -> Any:
                try:
                    return super().connect(*arguments, **named)
                except psycopg.Error as error:
                    self._failure = (monotonic(), _first_line(error))
                    raise

        self._pool: ConnectionPool[TimedConnection] = ConnectionPool(
            address.conninfo,
            connection_class=Noting,
            kwargs={"autocommit": True, "connect_timeout": _CONNECT_SECONDS, "application_name": "lowpass"},
            min_size=0,
            max_size=connections,
            configure=_configure,
            # Whoever asks next lets it be tried again; the pool's own pauses would outlast the outage.
            reconnect_timeout=0.0,
            open=True,
        )

    def search(self, name: str, vectors: Vectors, k: int, card: Card, seconds: float) -> Found:
        """See `Engine.search`."""
        cast = sql.SQL("::halfvec[]") if card.kind == "hnsw_half" else sql.SQL("")
        ask = _ASK.format(cast=cast, table=sql.Identifier(name))
        asked = ([Vector(vector) for vector in vectors], k)
        rows = self._fetch(ask, asked, seconds, search_settings(card, k))
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        table = table[np.lexsort((-table[:, 2], table[:, 0]))]
        counts = np.bincount(table[:, 0].astype(np.int64) - 1, minlength=len(vectors))
        return padded(k, counts, table[:, 2].astype(np.float32), table[:, 1].astype(np.int64))

    def read_card(self, name: str, seconds: float) -> Card | None:
        """See `Engine.read_card`."""
        ask = sql.SQL("SELECT obj_description(to_regclass(%s), 'pg_class')")
        ((text,),) = self._fetch(ask, (f'"{name}"',), seconds, {})
        return None if text is None else Card.from_json(text, f"{self._place}: {name}")

    def close(self) -> None:
        """End the connections."""
        self._pool.close()

    def _fetch(
        self, ask: sql.Composed | sql.SQL, values: tuple[Any, ...], seconds: float, settings: dict[str, str]
    ) -> Any:
        give_up_at = monotonic() + seconds
        # In powers of two, so that it is rarely another than the last one.
        settings = {"statement_timeout": f"{1 << max(0, math.ceil(math.log2(seconds * 1000)))}ms", **settings}
        while True:
            connection = self._connection(give_up_at)
            was_fresh, connection.is_fresh = connection.is_fresh, False
            try:
                return _run(connection, ask, values, settings, give_up_at)
            except psycopg.Error as error:
                is_late = monotonic() >= give_up_at
                if not (connection.broken and not was_fresh and not is_late):
                    raise self._explain(error, seconds, is_late=is_late) from error
            finally:
                connection.give_up_at = inf
                self._pool.putconn(connection)

    def _connection(self, give_up_at: float) -> TimedConnection:
        began = monotonic()
        while True:
            try:
                return self._pool.getconn(max(0.0, min(_LOOK_SECONDS, give_up_at - monotonic())))
            except PoolTimeout as error:
                failed_at, words = self._failure
                if failed_at >= began:
                    reason = "refused" if "authentication" in words or "does not exist" in words else "unreachable"
                    raise EngineError(reason, f"{self._place}: {words}") from error
                if monotonic() >= give_up_at:
                    raise EngineError("timeout", f"{self._place}: no connection in time") from error

    def _explain(self, error: psycopg.Error, seconds: float, *, is_late: bool) -> EngineError:
        if is_late or isinstance(error, QueryCanceled):
            return EngineError("timeout", f"{self._place}: no answer within {seconds:.3g} s")
        reasons: list[tuple[type[psycopg.Error], str]] = [
            (UndefinedTable, "missing"),
            (InsufficientPrivilege, "refused"),
            (InvalidAuthorizationSpecification, "refused"),
            (TooManyConnections, "busy"),
            (psycopg.OperationalError, "unreachable"),
        ]
        reason = next((reason for kind, reason in reasons if isinstance(error, kind)), "failed")
        return EngineError(reason, f"{self._place}: {_first_line(error)}")


def search_settings(card: Card, k: int) -> dict[str, str]:
    """What a search sets for itself; scans go on until they have found k."""
    if card.kind.startswith("hnsw"):
        ef = max(card.search.get("ef", 1), min(MOST, 1 << (k - 1).bit_length()))
        return {"hnsw.ef_search": str(ef), "hnsw.iterative_scan": "strict_order"}
    if card.kind == "ivf_flat":
        return {"ivfflat.probes": str(card.search.get("nprobe", 1)), "ivfflat.iterative_scan": "relaxed_order"}
    return {}


def _run(
    connection: TimedConnection,
    ask: sql.Composed | sql.SQL,
    values: tuple[Any, ...],
    settings: dict[str, str],
    give_up_at: float,
) -> list[tuple[Any, ...]]:
    """One turn to the server and back, and another where the last search on this connection had other settings."""
    connection.give_up_at = give_up_at
    try:
        if connection.settings != settings:
            calls = sql.SQL(", ").join([sql.SQL("set_config(%s, %s, false)")] * len(settings))
            pairs = [word for setting in settings.items() for word in setting]
            connection.execute(sql.SQL("SELECT {calls}").format(calls=calls), pairs)
            connection.settings = settings
        rows: list[tuple[Any, ...]] = connection.execute(ask, values).fetchall()
        return rows
    except psycopg.OperationalError:
        connection.close()  # it may still be in the middle of an answer
        raise


def _configure(connection: TimedConnection) -> None:
    register_vector(connection)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
