"""From a run to a bundle: vectors and their precision, the index, ONNX graphs, and what proves them right."""
