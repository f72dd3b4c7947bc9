"""Where candidates come from: an index a file."""
