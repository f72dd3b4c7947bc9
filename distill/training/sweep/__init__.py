"""Sweeps: many runs of one method, each with other settings, and which of them is best on validation."""
