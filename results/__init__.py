"""The evidence: every cell of a plan trained once, stored as JSON, and put into the tables of RESULTS.md.

A cell is one training (data set, backbone, method, dimension, trial of its settings, seed) or one model that is not
trained (a baseline, a teacher made small). Trials are run with the first seed and the best one, by validation
Recall@20 alone, is repeated with the other seeds.
"""
