"""ONNX Runtime behind the fold-in port: one caller's thread, no arena, no spinning."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from serve.answers.errors import UnusableBundle
from serve.answers.ports import Matrix


class OnnxFoldIn:
    """`fold_in.onnx`: item rows of a history → user vector. Thread-safe: a session may run concurrently.

    Args:
        in_memory: The graph's external weights by name, where they are in memory; ONNX Runtime maps the others.
        recent_step: Factor by which a known user follows the fold-in when recent items join.

    Raises:
        UnusableBundle: The graph cannot be read, or has other inputs or outputs.
    """

    def __init__(self, path: Path, in_memory: Mapping[str, Matrix] | None = None, *, recent_step: float = 1.0) -> None:
        self.recent_step = recent_step
        options = onnxruntime.SessionOptions()
        # The session keeps no reference of its own.
        self._weights = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(values) for name, values in (in_memory or {}).items()
        }
        if self._weights:
            options.add_external_initializers(list(self._weights), list(self._weights.values()))
        # One thread makes no pool; the arena would keep the largest request's memory for ever.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            reason = str(error).splitlines()[0][:200]
            raise UnusableBundle(f"{path}: ONNX Runtime cannot read it ({reason}): export again") from error
        inputs = [node.name for node in self._session.get_inputs()]
        outputs = [node.name for node in self._session.get_outputs()]
        if inputs != ["item_index"] or outputs != ["user_embedding"]:
            raise UnusableBundle(f"{path}: maps {inputs} to {outputs}, not item_index to user_embedding: export again")

    def encode(self, item_index: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """The vector of someone with these items.

        Args:
            item_index: Shape (H,), H ≥ 1.

        Returns:
            float32 of shape (d,).
        """
        (vector,) = self._session.run(["user_embedding"], {"item_index": item_index})
        return np.asarray(vector, dtype=np.float32)
