"""A toy bundle with a known answer: user u likes item u best, and has item (u + 1) % I."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser

from distill.data.interactions import Interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.run import Run, open_run, write_run
from export.bundle import BundleContents, IndexCard, Manifest, ModelCard, write_bundle
from export.bundle.arrays import read_header

USERS, ITEMS, DIM = 3, 4, 4
PLACEHOLDER = b"placeholder"


def toy_manifest(name: str = "toy", version: str = "1", dim: int = DIM) -> Manifest:
    return Manifest(
        schema_version=1,
        bundle_id="",
        producer="lowpass test",
        created="2026-01-01T00:00:00+00:00",
        model=ModelCard(name, version, "bprmf", "scratch", dim, (USERS + ITEMS) * dim),
        counts={},
        quality={"recall@20": 0.5, "ndcg@20": 0.25, "teacher_recall@20": None, "convention": "toy"},
        data={"name": "toy", "fingerprint": "0" * 64},
        index=IndexCard("Flat", {}, 1.0, 2, 16.0, []),
        fold_in={"ridge": 0.1, "gram_weight": 0.01},
        files={},
    )


def toy_contents(dtype: str = "float32") -> BundleContents:
    return BundleContents(
        user_ids=["ann", "bob", "çağ"],
        item_ids=["i0", "i1", "i2", "i3"],
        user_embeddings=np.eye(USERS, DIM, dtype=dtype),
        item_embeddings=np.eye(ITEMS, DIM, dtype=dtype),
        seen_indptr=np.array([0, 1, 2, 3]),
        seen_indices=np.array([1, 2, 3]),
        popularity=np.array([3, 1, 2, 0]),
        item_titles=["Zero", "One", "Two — deux", ""],
        item_categories=[["a", "b"], [], ["b"], ["c"]],
        heldout_indptr=np.array([0, 1, 2, 2]),
        heldout_indices=np.array([0, 1]),
    )


def write_placeholders(directory: Path) -> None:
    for name in ("index.faiss", "recommend.onnx", "fold_in.onnx"):
        (directory / name).write_bytes(PLACEHOLDER)


def write_toy(target: Path, contents: BundleContents | None = None) -> Manifest:
    return write_bundle(target, toy_manifest(), contents or toy_contents(), write_placeholders)


def toy_interactions(num_users: int = 120, num_items: int = 90) -> Interactions:
    return synthesize(SyntheticOptions(num_users=num_users, num_items=num_items, num_clusters=6, seed=3))


def toy_run(path: Path, data: Interactions, dim: int, teacher: Path | None = None, *, scale: float = 1.0) -> Run:
    """A run whose embeddings are the rank-`dim` factors of the training matrix: quick, and good enough to rank."""
    left, singular, right = np.linalg.svd(data.train.toarray(), full_matrices=False)
    root = np.sqrt(singular[:dim])
    config = {
        "backbone": "svd",
        "method": "scratch",
        "dim": dim,
        "data": {"name": data.name, "fingerprint": data.fingerprint},
        "teacher": str(teacher) if teacher else None,
        "seed": 0,
    }
    users, items = left[:, :dim] * root * scale, right[:dim].T * root
    write_run(path, config, users.astype(np.float32), items.astype(np.float32), {})
    return open_run(path)


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
