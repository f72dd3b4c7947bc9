"""From a run to a bundle: the artefact that `serve` reads, its id tables, ONNX graphs and FAISS index.

What needs NumPy alone is offered here; the jobs that need more are in `export.build` and `export.frontier`:

    from export import open_bundle
    from export.build.publish import export_run
"""

from __future__ import annotations

from export.bundle import Bundle, BundleError, ModelRepository, ScoredItem, open_bundle

__all__ = ["Bundle", "BundleError", "ModelRepository", "ScoredItem", "open_bundle"]
