from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from distill.data.interactions import load_interactions
from distill.distributed.ranks import Ranks
from distill.distributed.shares import Share, read_share
from distill.errors import DataError


def shares_of(data: Path, size: int) -> list[Share]:
    return [read_share(data, Ranks(rank, size, torch.device("cpu"))) for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_shares_together_are_the_data_and_each_is_its_range(small: Path, size: int) -> None:
    data, shares = load_interactions(small / "data"), shares_of(small / "data", size)
    for share in shares:
        for split in ("train", "validation", "test"):
            assert (getattr(share, split) != getattr(data, split)[share.users]).nnz == 0
        assert (share.item_users != data.train.T.tocsr()[share.items]).nnz == 0
        assert share.item_counts.tolist() == data.item_popularity.tolist()
        assert share.user_counts.tolist() == np.diff(data.train.indptr).tolist()
        assert share.fingerprint == data.fingerprint
    rows = np.concatenate([share.table_rows(np.arange(share.num_own)) for share in shares])
    assert sorted(rows) == list(range(data.num_users + data.num_items))


def test_a_missing_file_is_named(small: Path, tmp_path: Path) -> None:
    ranks = Ranks(0, 1, torch.device("cpu"))
    with pytest.raises(DataError, match=r"no dataset\.json there"):
        read_share(tmp_path, ranks)
    (tmp_path / "dataset.json").write_text((small / "data" / "dataset.json").read_text())
    with pytest.raises(DataError, match=r"unreadable data directory .*interactions\.parquet"):
        read_share(tmp_path, ranks)


def test_interactions_of_another_data_set_are_seen(small: Path, tmp_path: Path) -> None:
    description = json.loads((small / "data" / "dataset.json").read_text())
    description["counts"]["train"] += 1
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (tmp_path / "interactions.parquet").write_bytes((small / "data" / "interactions.parquet").read_bytes())
    with pytest.raises(DataError, match=r"has not the training interactions"):
        read_share(tmp_path, Ranks(0, 1, torch.device("cpu")))
