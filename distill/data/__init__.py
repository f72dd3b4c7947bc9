"""Interaction data: reading, filtering, splitting, storing."""
