"""From a run to a bundle: the artefact that `serve` reads, its id tables, ONNX graphs and FAISS index."""
