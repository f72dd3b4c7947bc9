from __future__ import annotations

import scipy.sparse as sp
import torch

from distill.methods.candidates import StudentRanking

SEEN = sp.csr_matrix((2, 4), dtype="float32")
ROWS, CANDIDATES = torch.tensor([[1.0], [-1.0]]), torch.tensor([[0.0], [1.0], [2.0], [3.0]])


def test_lists_stay_until_they_are_due() -> None:
    ranking = StudentRanking(SEEN, 2, every=3)
    assert [ranking.begin_epoch(factor * ROWS, CANDIDATES) for factor in (1, -1, -1)] == [True, False, False]
    assert ranking.lists.tolist() == [[3, 2], [0, 1]]
    assert ranking.begin_epoch(-ROWS, CANDIDATES)
    assert ranking.lists.tolist() == [[0, 1], [3, 2]]


def test_a_restored_ranking_goes_on_where_the_other_was() -> None:
    ranking, restored = StudentRanking(SEEN, 2, every=2), StudentRanking(SEEN, 2, every=2)
    ranking.begin_epoch(ROWS, CANDIDATES)
    restored.load_state_dict(ranking.state_dict())
    for one in (ranking, restored):
        assert not one.begin_epoch(-ROWS, CANDIDATES)
        assert one.lists.tolist() == [[3, 2], [0, 1]]
        assert one.begin_epoch(-ROWS, CANDIDATES)
