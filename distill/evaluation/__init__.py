"""How good a model is: full rankings, metrics, baselines, and whether a difference is more than chance."""
