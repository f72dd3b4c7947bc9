"""The two ONNX graphs of a bundle, standard operators only, weights mapped from the bundle's own array files.

`recommend.onnx` is a gather, a matrix product and a top-k. `fold_in.onnx` turns a history into a user vector
u, the minimiser of

    Σ_h (v_h·u − 1)² + w Σ_i (v_i·u)² + λ‖u‖²,

h over the H items of the history (an item given twice counts twice), i over the catalogue. With V_h of shape
(H, d) and G = VᵀV that is (V_hᵀV_h + B) u = V_hᵀ1, B = wG + λI. B is the same for every history, so P with
PᵀBP = I is computed once, at export; in u = P x the system is (I + WᵀW) x = Wᵀ1, W = V_h P. It differs from
the identity by a matrix of rank H, so conjugate gradients end after about min(H, d) steps; they run in
float64.

References:
    Hu, Koren and Volinsky, "Collaborative filtering for implicit feedback datasets", ICDM 2008 (the w term).
    Hestenes and Stiefel, "Methods of conjugate gradients for solving linear systems", 1952.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import numpy_helper, parser

from export.bundle.arrays import read_header
from export.bundle.errors import WrongAnswer
from export.bundle.manifest import FOLD_IN_FILE, RECOMMEND_FILE

RELATIVE_RESIDUAL = 1e-9
"""Conjugate gradients stop when the residual is this share of the right-hand side."""

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
  history = Gather <axis = 0> (item_embeddings, item_index)
  wide = Cast <to = 11> (history)
  w = MatMul (wide, whitening)
  w_transposed = Transpose <perm = [1, 0]> (w)
  b = ReduceSum <keepdims = 0> (w, first_axis)
  b_squared = MatMul (b, b)
  tolerance = Mul (b_squared, relative_tolerance)
  unsolved = Greater (b_squared, tolerance)
  zeros = Sub (b, b)
  x, last_residual, last_direction, last_squared = Loop (max_steps, unsolved, zeros, b, b, b_squared) <
    body = step (int64 count, bool go, double[d] x_in, double[d] r_in, double[d] p_in, double s_in)
        => (bool go_out, double[d] x_out, double[d] r_out, double[d] p_out, double s_out) {
      wp = MatMul (w, p_in)
      wwp = MatMul (w_transposed, wp)
      q = Add (p_in, wwp)
      curvature = MatMul (p_in, q)
      length = Div (s_in, curvature)
      x_step = Mul (length, p_in)
      x_out = Add (x_in, x_step)
      r_step = Mul (length, q)
      r_out = Sub (r_in, r_step)
      s_out = MatMul (r_out, r_out)
      turn = Div (s_out, s_in)
      p_step = Mul (turn, p_in)
      p_out = Add (r_out, p_step)
      go_out = Greater (s_out, tolerance)
    }
  >
  solution = MatMul (whitening, x)
  user_embedding = Cast <to = 1> (solution)
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


def write_fold_in_graph(directory: Path, whitening: npt.NDArray[np.float64]) -> None:
    """Write `fold_in.onnx` beside the item embeddings it maps.

    Input item_index int64 (H,); output user_embedding float32 (d,), zeros for an empty history.

    Args:
        directory: The bundle's draft, with `item_embeddings.npy` in it.
        whitening: P of the module's text, shape (d, d), from `export.build.fold_in.build_whitening`.
    """
    dim = len(whitening)
    model = parser.parse_model(_HEADER + _FOLD_IN)
    constants: dict[str, npt.NDArray[Any]] = {
        "whitening": whitening,
        "first_axis": np.array([0], dtype=np.int64),
        "relative_tolerance": np.array(RELATIVE_RESIDUAL**2),
        # Exact arithmetic needs min(H, d) steps; rounding a few more.
        "max_steps": np.array(2 * dim + 16, dtype=np.int64),
    }
    model.graph.initializer.append(_external_tensor(directory, "item_embeddings"))
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
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
