"""Sweeps: many runs of one method, each with other settings, of which validation says the best."""
