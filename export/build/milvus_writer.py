"""Filling Milvus by its own client.

A collection's card is the description of another collection, which holds nothing: Milvus takes a description when it
makes a collection and, in its smallest edition, never again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import numpy.typing as npt
from pymilvus import DataType, MilvusClient, MilvusException

from export.bundle.engines.address import EngineAddress
from export.bundle.engines.card import Card
from export.bundle.engines.milvus import FIELD, card_name
from export.bundle.errors import EngineError

SECONDS = 60.0
"""Longest time of a call, which the client repeats until then; of building and loading, `BUILD_SECONDS`."""
BUILD_SECONDS = 6 * 3600.0
_KINDS = {"flat": "FLAT", "ivf_flat": "IVF_FLAT", "ivf_sq8": "IVF_SQ8", "hnsw": "HNSW"}
_NO_CONNECTION, _NO_SUCH_ALIAS = 2, 1600


class MilvusWriter:
    """See `engine_load.Writer`.

    Args:
        address: Where the Milvus is.

    Raises:
        EngineError: It cannot be reached.
    """

    def __init__(self, address: EngineAddress) -> None:
        self._place = address.place
        # Its client prints each failure with a stack trace; ours is told in a line.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        options: dict[str, Any] = {**address.options}
        scheme = "https" if options.pop("secure", "false").lower() in ("true", "1") else "http"
        uri = f"{scheme}://{address.host}"
        with self._errors():
            self._client = MilvusClient(uri=uri, token=address.token, db_name=address.database, timeout=10.0, **options)

    def create(self, name: str, dim: int, kind: str) -> None:
        """See `Writer.create`."""
        del kind
        with self._errors():
            for left in (card_name(name), name):
                self._client.drop_collection(left, timeout=SECONDS)
            self._client.create_collection(name, schema=_schema(dim, ""), timeout=SECONDS)

    def insert(self, name: str, first: int, vectors: npt.NDArray[np.float32]) -> None:
        """See `Writer.insert`."""
        rows = [{"id": first + number, FIELD: vector} for number, vector in enumerate(vectors)]
        with self._errors():
            count = self._client.insert(name, rows, timeout=SECONDS)["insert_count"]
        if count != len(rows):
            raise EngineError("failed", f"{self._place}: {name} took {count} of {len(rows)} items: load it again")

    def build(self, name: str, kind: str, lists: int) -> float:
        """See `Writer.build`."""
        parameters: dict[str, dict[str, int]] = {
            "ivf_flat": {"nlist": lists},
            "ivf_sq8": {"nlist": lists},
            "hnsw": {"M": 16, "efConstruction": 200},
        }
        with self._errors():
            index = self._client.prepare_index_params()
            index.add_index(
                FIELD, index_type=_KINDS[kind], index_name=FIELD, metric_type="IP", params=parameters.get(kind, {})
            )
            self._client.flush(name, timeout=SECONDS)
            self._client.create_index(name, index, timeout=BUILD_SECONDS)
            self._client.load_collection(name, timeout=BUILD_SECONDS)
        return 0.0

    def write_card(self, name: str, card: Card) -> None:
        """See `Writer.write_card`."""
        with self._errors():
            self._client.create_collection(card_name(name), schema=_schema(2, card.to_json()), timeout=SECONDS)

    def point(self, alias: str, name: str) -> bool:
        """See `Writer.point`."""
        try:
            with self._errors():
                try:
                    self._client.alter_alias(name, alias, timeout=SECONDS)
                except MilvusException as error:
                    if error.code != _NO_SUCH_ALIAS:
                        raise
                    self._client.create_alias(name, alias, timeout=SECONDS)
        except EngineError as error:
            if error.reason == "unimplemented":
                return False
            raise
        return True

    def close(self) -> None:
        """End the connection."""
        self._client.close()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Say in a line what Milvus, or the way to it, refuses."""
        try:
            yield
        except grpc.RpcError as error:
            call: Any = error
            unknown = call.code() is grpc.StatusCode.UNIMPLEMENTED
            raise EngineError(
                "unimplemented" if unknown else "unreachable", f"{self._place}: {call.code().name}"
            ) from error
        except MilvusException as error:
            words = (str(error.message).strip().splitlines() or ["no reason given"])[0][:200]
            reason = "unreachable" if error.code == _NO_CONNECTION else "failed"
            raise EngineError(reason, f"{self._place}: {words}") from error


def _schema(dim: int, description: str) -> Any:
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=description)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field(FIELD, DataType.FLOAT_VECTOR, dim=dim)
    return schema
