"""`fold_in.onnx` as bundles of schema version 1 have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser

from export.bundle.arrays import read_header

FIRST_FOLD_IN = """
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
"""What `lowpass export` wrote for schema version 1: u = argmin Σ_h (v_h·u − 1)² + uᵀBu by conjugate gradients; P
whitens B."""


def write_first_fold_in_graph(directory: Path, whitening: npt.NDArray[np.float64]) -> None:
    """Write `fold_in.onnx` of schema version 1 beside `item_embeddings.npy`; `whitening` is P, shape (d, d)."""
    model = onnx.parser.parse_model(
        '<ir_version: 9, opset_import: ["" : 18], producer_name: "lowpass">' + FIRST_FOLD_IN
    )
    dtype, shape, offset = read_header(directory / "item_embeddings.npy")
    kind = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    items = onnx.TensorProto(
        name="item_embeddings", data_type=kind, dims=shape, data_location=onnx.TensorProto.EXTERNAL
    )
    for key, value in (("location", "item_embeddings.npy"), ("offset", offset)):
        items.external_data.add(key=key, value=str(value))
    constants = {
        "whitening": whitening,
        "first_axis": np.array([0]),
        "relative_tolerance": np.array(1e-18),
        "max_steps": np.array(2 * len(whitening) + 16),
    }
    model.graph.initializer.append(items)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    (directory / "fold_in.onnx").write_bytes(model.SerializeToString())
