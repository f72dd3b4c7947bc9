"""Opening an engine by its address; its driver is imported only then."""

from __future__ import annotations

from export.bundle.engines.address import EngineAddress
from export.bundle.engines.engine import Engine
from export.bundle.errors import EngineExtraMissing

EXTRAS = {"milvus": "pymilvus", "pgvector": "psycopg"}


def open_engine(address: EngineAddress, connections: int = 4) -> Engine:
    """Make what asks an engine; nothing is connected yet.

    Args:
        connections: Searches at a time that each need one of their own.

    Raises:
        EngineExtraMissing: Its driver is not installed.
        ExportError: A file that the address names cannot be read.
    """
    try:
        if address.kind == "milvus":
            from export.bundle.engines.milvus import Milvus

            return Milvus(address)
        from export.bundle.engines.pgvector import Pgvector

        return Pgvector(address, connections)
    except ImportError as error:
        raise EngineExtraMissing(
            f"{address.place}: needs {EXTRAS[address.kind]} ({error}): pip install 'lowpass[{address.kind}]'"
        ) from error
