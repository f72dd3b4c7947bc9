"""Filling pgvector: table and index in one transaction, so that a load that is cut leaves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
from pgvector import HalfVector, Vector
from pgvector.psycopg import register_vector
from psycopg import sql

from export.bundle.engines.address import EngineAddress
from export.bundle.engines.card import Card
from export.bundle.errors import EngineError, ExportError

CONNECT_SECONDS = 10
BUILD_MEMORY = "1GB"
"""For building an index: a graph that does not fit is built many times slower."""


class PgvectorWriter:
    """See `engine_load.Writer`.

    Args:
        address: Where the PostgreSQL is.

    Raises:
        EngineError: It cannot be reached, or has no pgvector.
    """

    def __init__(self, address: EngineAddress) -> None:
        self._place = address.place
        self._is_half = False
        with self._errors():
            self._connection = psycopg.connect(address.conninfo, connect_timeout=CONNECT_SECONDS, autocommit=True)
            if not self._connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone():
                self._connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            register_vector(self._connection)

    def create(self, name: str, dim: int, kind: str) -> None:
        """See `Writer.create`; what is done until `build` ends is one transaction."""
        self._is_half = kind == "hnsw_half"
        column = sql.SQL(f"{self._type}({dim:d})")
        with self._errors():
            self._connection.autocommit = False
            self._execute("DROP TABLE IF EXISTS {name}", name)
            self._execute(
                "CREATE TABLE {name} (id integer PRIMARY KEY, embedding {column} NOT NULL)", name, column=column
            )

    def insert(self, name: str, first: int, vectors: npt.NDArray[np.float32]) -> None:
        """See `Writer.insert`."""
        kind = HalfVector if self._is_half else Vector
        copy = sql.SQL("COPY {name} (id, embedding) FROM STDIN WITH (FORMAT BINARY)").format(name=sql.Identifier(name))
        with self._errors(), self._connection.cursor().copy(copy) as stream:
            stream.set_types(["int4", self._type])
            for number, vector in enumerate(vectors):
                stream.write_row((first + number, kind(vector)))

    def build(self, name: str, kind: str, lists: int) -> float:
        """See `Writer.build`."""
        operators = sql.SQL(f"{self._type}_ip_ops")
        with self._errors():
            self._connection.execute(sql.SQL("SET LOCAL maintenance_work_mem = {}").format(BUILD_MEMORY))
            if kind.startswith("hnsw"):
                self._execute("CREATE INDEX ON {name} USING hnsw (embedding {operators})", name, operators=operators)
            elif kind == "ivf_flat":
                count = sql.Literal(lists)
                ask = "CREATE INDEX ON {name} USING ivfflat (embedding {operators}) WITH (lists = {count})"
                self._execute(ask, name, operators=operators, count=count)
            self._execute("ANALYZE {name}", name)
            measure = "SELECT pg_total_relation_size({quoted}::regclass), (SELECT count(*) FROM {name})"
            row = self._execute(measure, name, quoted=sql.Literal(f'"{name}"')).fetchone()
            self._connection.commit()
            self._connection.autocommit = True
        size, count = row
        return float(size / max(count, 1))

    def write_card(self, name: str, card: Card) -> None:
        """See `Writer.write_card`."""
        with self._errors():
            self._execute("COMMENT ON TABLE {name} IS {text}", name, text=sql.Literal(card.to_json()))

    def point(self, alias: str, name: str) -> bool:
        """See `Writer.point`; a view, replaced where it can be, so that who may read it stays."""
        view = sql.Identifier(alias)
        make = "CREATE OR REPLACE VIEW {view} AS SELECT id, embedding FROM {name}"
        with self._errors(), self._connection.transaction():
            try:
                with self._connection.transaction():
                    self._execute(make, name, view=view)
            except psycopg.errors.InvalidTableDefinition:  # vectors of another length or type
                self._execute("DROP VIEW {view}", name, view=view)
                self._execute(make, name, view=view)
            except psycopg.errors.WrongObjectType as error:
                raise ExportError(f"{self._place}: {alias} is no view there: give another name behind the /") from error
        return True

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    @property
    def _type(self) -> str:
        return "halfvec" if self._is_half else "vector"

    def _execute(self, statement: str, name: str, **parts: sql.Composable) -> Any:
        # Statements are this module's own words; names and values go in as identifiers and literals.
        ask = sql.SQL(statement).format(name=sql.Identifier(name), **parts)
        return self._connection.execute(ask)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Say in a line what PostgreSQL, or the way to it, refuses."""
        try:
            yield
        except psycopg.Error as error:
            reason = "unreachable" if isinstance(error, psycopg.OperationalError) else "failed"
            words = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise EngineError(reason, f"{self._place}: {words}") from error
