"""Online answers: a bundle in, gRPC answers and Prometheus series out. Imports no torch."""
