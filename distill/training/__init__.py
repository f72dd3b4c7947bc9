"""From settings to a run: the epoch loop, checkpoints, one job or many of them."""
