"""The evidence: every cell of a plan is trained or built once, kept as a row of `cells.csv`, and shown in RESULTS.md.

A cell is one training (data set, backbone, contestant, dimension, trial of its settings, seed) or one model that is not
trained (a baseline, a teacher made small). Trials are run with the first seed; the best one, by validation Recall@20
alone, is repeated with the other seeds.
"""
