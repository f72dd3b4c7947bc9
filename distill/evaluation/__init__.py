"""How good a model is: full ranking under a stated protocol, metrics, and significance.

report = evaluate(run.user_embeddings, run.item_embeddings, data, Protocol(split="test"))
"""

from __future__ import annotations

from distill.evaluation.comparison import compare_runs
from distill.evaluation.metrics import METRICS, measure_ranking, overlap
from distill.evaluation.protocol import EvaluationReport, Protocol, evaluate, evaluate_scores, report_splits
from distill.evaluation.ranking import rank_items, rank_scores
from distill.evaluation.significance import PairedTest, average_seeds, compare_pairs

__all__ = [
    "METRICS",
    "EvaluationReport",
    "PairedTest",
    "Protocol",
    "average_seeds",
    "compare_pairs",
    "compare_runs",
    "evaluate",
    "evaluate_scores",
    "measure_ranking",
    "overlap",
    "rank_items",
    "rank_scores",
    "report_splits",
]
