"""The same FAISS index as an MLServer model: a vector in, the rows and scores of its 20 best items out.

It runs in MLServer's own interpreter. It does less than Lowpass: no ids, no user table, no items left out.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

K = 20


class Index(MLModel):  # type: ignore[misc]  # MLServer is not installed where this is checked
    """FAISS behind the Open Inference Protocol."""

    async def load(self) -> bool:
        """Read the index and set its search parameters."""
        faiss.omp_set_num_threads(1)
        parameters = self.settings.parameters
        self._index = faiss.read_index(parameters.uri)
        for name, value in parameters.extra["search"].items():
            faiss.ParameterSpace().set_index_parameter(self._index, name, value)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one vector."""
        vectors: Any = NumpyCodec.decode_input(payload.inputs[0])
        scores, rows = self._index.search(np.ascontiguousarray(vectors, dtype=np.float32), K)
        outputs = [NumpyCodec.encode_output("rows", rows), NumpyCodec.encode_output("scores", scores)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
