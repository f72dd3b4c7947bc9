"""The search of a blend over a long catalogue: what it holds does not grow with the users that are looked at."""

from __future__ import annotations

import numpy as np
import psutil
import pytest
import scipy.sparse as sp
import torch

from distill.baselines import blend
from distill.data.interactions import Interactions

USERS, ITEMS = 400, 1_000_000


@pytest.mark.timeout(600)
def test_the_search_holds_no_more_with_every_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blend, "CHUNK_BYTES", 1)  # the fewest users a chunk: 100 chunks of 48 MB
    found = np.random.default_rng(0).integers(0, ITEMS, USERS)
    matrix = sp.csr_matrix((np.ones(USERS, np.float32), found, np.arange(USERS + 1)), shape=(USERS, ITEMS))
    user_ids, item_ids = (np.arange(size).astype(np.str_) for size in matrix.shape)
    data = Interactions("long", user_ids, item_ids, matrix, matrix, matrix)
    column = torch.rand(ITEMS)
    families = {name: {name: lambda users: column.repeat(len(users), 1)} for name in "abc"}
    before = psutil.Process().memory_info().rss
    blend.choose_blend(families, data, first="a", given={})
    assert psutil.Process().memory_info().rss - before < 150 << 20  # 470 MB where each chunk left small arrays behind
