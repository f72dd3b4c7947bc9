"""The Spark job on a toy, beside `lowpass data prepare`; it needs Java and a Python that has PySpark."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.data.interactions import SPLITS, Interactions, load_interactions
from distill.data.prepare import PrepareOptions, prepare_source

JOB = Path(__file__).resolve().parents[3] / "deploy" / "spark" / "prepare.py"
PYTHON = os.environ.get("LOWPASS_SPARK_PYTHON", sys.executable)


@pytest.fixture(autouse=True)
def _has_spark() -> None:
    if "LOWPASS_SPARK_PYTHON" not in os.environ and importlib.util.find_spec("pyspark") is None:
        pytest.skip("no PySpark: name a Python that has pyspark and pyarrow in LOWPASS_SPARK_PYTHON")
    if shutil.which("java") is None:
        pytest.skip("no Java: PySpark needs 17 or later")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Some users and items below a core of 5, pairs that come again, no two times alike."""
    rng = np.random.default_rng(0)
    count = 4_000
    users, items = rng.integers(150, size=count), (rng.random(count) ** 3 * 90).astype(int)
    table = {
        "user_id": [f"u{user * 7 % 1000}" for user in users],
        "item_id": [f" i{item}é" for item in items],
        "rating": rng.integers(1, 6, count),
        "timestamp": rng.permutation(count) + 1_600_000_000,
    }
    path = tmp_path / "raw.parquet"
    pq.write_table(pa.table(table), path)
    return path


def spark(source: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    submit = "--master local[2] --conf spark.ui.enabled=false --conf spark.sql.shuffle.partitions=3 pyspark-shell"
    environment = {**os.environ, "PYSPARK_SUBMIT_ARGS": submit, "SPARK_LOCAL_IP": "127.0.0.1"}
    environment |= {"SPARK_LOCAL_DIRS": str(out.parent / "spark"), "PYTHONPATH": ""}
    words: Sequence[str] = [PYTHON, str(JOB), str(source), str(out), *more]
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=240)


def rows(data: Interactions, split: str) -> set[tuple[str, str]]:
    pairs = getattr(data, split).tocoo()
    return set(zip(data.user_ids[pairs.row].tolist(), data.item_ids[pairs.col].tolist(), strict=True))


def test_it_leaves_what_prepare_leaves(source: Path, tmp_path: Path) -> None:
    done = spark(source, tmp_path / "data", "--user-min", "5", "--item-min", "20", "--rating-min", "2")
    assert done.returncode == 0, done.stderr
    options = PrepareOptions(rating_minimum=2, user_minimum=5, item_minimum=20, split="temporal")
    ours, theirs = prepare_source(source, options, name="toy"), load_interactions(tmp_path / "data")
    assert 0 < ours.num_items < 90
    assert theirs.counts == ours.counts
    for split in SPLITS:
        assert rows(theirs, split) == rows(ours, split)
    assert theirs.user_ids.tolist() == sorted(ours.user_ids.tolist())
    assert [path.name for path in tmp_path.glob(".data*")] == []


def test_a_bad_value_leaves_nothing(source: Path, tmp_path: Path) -> None:
    table = pq.read_table(source)
    bad = pa.concat_tables([table, table.slice(0, 1).set_column(0, "user_id", pa.array(["NaN"]))])
    pq.write_table(bad, source)
    done = spark(source, tmp_path / "data", "--split", "random")
    assert done.returncode == 2
    assert "raw.parquet: 1 rows have no user_id; fill it in or drop the rows" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw.parquet", "spark"]
