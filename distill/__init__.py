"""Offline distillation: interactions in, a run with user and item embeddings out.

Shape symbols used in every docstring below this package:

- |U|, |I|: number of users, of items; N: number of entities of one kind (or of both);
- B: rows of a batch; C: candidates per row; K: length of a recommended list;
- d: embedding dimension; d_t, d_s: the teacher's, the student's.
"""
