"""The two ONNX graphs of a bundle, standard operators only, weights mapped from the bundle's own array files.

`recommend.onnx` is a gather, a matrix product and a top-k. `fold_in.onnx` is a gather and a mean over the H items of a
history (an item given twice counts twice); `export/build/fold_in.py` has what its table holds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper, parser

from export.bundle.arrays import read_header
from export.bundle.errors import WrongAnswer
from export.bundle.manifest import FOLD_IN_FILE, RECOMMEND_FILE

_HEADER = '<ir_version: 9, opset_import: ["" : 18], producer_name: "lowpass">'

_RECOMMEND = """
recommend (int64[B] user_index, int64[1] k) => (float[B, K] scores, int64[B, K] item_index) {
  users = Gather <axis = 0> (user_embeddings, user_index)
  wide_users = Cast <to = 1> (users)
  wide_items = Cast <to = 1> (item_embeddings)
  all_scores = Gemm <transB = 1> (wide_users, wide_items)
  scores, item_index = TopK <axis = 1, largest = 1, sorted = 1> (all_scores, k)
}
"""

_FOLD_IN = """
fold_in (int64[H] item_index) => (float[d] user_embedding) {
  history = Gather <axis = 0> (fold_in_embeddings, item_index)
  wide = Cast <to = 1> (history)
  user_embedding = ReduceMean <keepdims = 0> (wide, first_axis)
}
"""


def write_recommend_graph(directory: Path) -> None:
    """Write `recommend.onnx` beside the embedding files it maps.

    Inputs user_index int64 (B,) and k int64 (1,); outputs scores float32 (B, k) and item_index int64 (B, k),
    best first; of equal scores the lower row comes first.

    Args:
        directory: The bundle's draft, with both embedding files in it.
    """
    model = parser.parse_model(_HEADER + _RECOMMEND)
    for name in ("user_embeddings", "item_embeddings"):
        model.graph.initializer.append(_external_tensor(directory, name))
    _save(model, directory / RECOMMEND_FILE)


def write_fold_in_graph(directory: Path) -> None:
    """Write `fold_in.onnx` beside the table it maps.

    Input item_index int64 (H,), H >= 1; output user_embedding float32 (d,).

    Args:
        directory: The bundle's draft, with `fold_in_embeddings.npy` in it.
    """
    model = parser.parse_model(_HEADER + _FOLD_IN)
    model.graph.initializer.append(_external_tensor(directory, "fold_in_embeddings"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([0], dtype=np.int64), "first_axis"))
    _save(model, directory / FOLD_IN_FILE)


def _external_tensor(directory: Path, name: str) -> onnx.TensorProto:
    """Describe an array file as an ONNX tensor whose bytes stay where they are."""
    location = f"{name}.npy"
    dtype, shape, offset = read_header(directory / location)
    tensor = onnx.TensorProto(
        name=name,
        data_type=onnx.helper.np_dtype_to_tensor_dtype(dtype),
        dims=shape,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    length = dtype.itemsize * shape[0] * shape[1]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _save(model: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(path, full_check=True)


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """Open a graph for one thread, with no pool, no arena and no second copy of the weights.

    Raises:
        WrongAnswer: ONNX Runtime cannot load it.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own error classes are private
        raise WrongAnswer(f"{path}: ONNX Runtime cannot load it ({error}); export the bundle again") from error
