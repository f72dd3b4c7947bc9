"""Implementations of the ports: FAISS, ONNX, exact NumPy, and a fake that needs no model."""
