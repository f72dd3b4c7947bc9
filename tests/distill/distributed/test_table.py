from __future__ import annotations

import pytest
import torch

from distill.distributed import table
from distill.distributed.ranks import Ranks
from distill.distributed.table import ShardedTable, TableSettings
from distill.errors import SettingError

ALONE = Ranks(0, 1, torch.device("cpu"))


def test_the_pinned_pair_loads_with_this_torch() -> None:
    assert table._missing is None
    assert set(TableSettings().fused) == {"optimizer", "learning_rate", "eps"}
    assert hasattr(torch.ops.fbgemm, "split_embedding_codegen_lookup_rowwise_adagrad_function_cpu")


def test_without_torchrec_what_to_install_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "_missing", ImportError("No module named 'torchrec'"))
    with pytest.raises(SettingError, match=r"No module named 'torchrec'.*pip install --no-deps torchrec==1\.8\.0"):
        ShardedTable(10, 8, ALONE, TableSettings())


def test_rows_that_fbgemm_could_not_align_and_too_many_ranks_are_refused() -> None:
    with pytest.raises(SettingError, match=r"^dim: 10 is no multiple of 4.*give 12"):
        ShardedTable(10, 10, ALONE, TableSettings())
    with pytest.raises(SettingError, match=r"3 ranks cannot share 2 rows"):
        ShardedTable(2, 8, Ranks(0, 3, torch.device("cpu")), TableSettings())
