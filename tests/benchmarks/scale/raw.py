"""A source for `lowpass data prepare`, made of a data directory: Parquet of ids and times, rows in the order of time.

python -m tests.benchmarks.scale.raw DATA OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FIRST_SECOND = 1_600_000_000


def write_raw(data: Path, out: Path, seed: int = 0) -> None:
    """Write `user_id`, `item_id` (strings) and `timestamp` (seconds, rising), every interaction once.

    Args:
        data: Directory as `lowpass data` writes it.
        out: The file.
        seed: Of the order, in which the parts of the split are mixed.
    """
    pairs = pq.read_table(data / "interactions.parquet", columns=["user_index", "item_index"])
    order = np.random.default_rng(seed).permutation(pairs.num_rows)
    columns = {}
    for kind in ("user", "item"):
        ids = pq.read_table(data / f"{kind}s.parquet", columns=[f"{kind}_id"]).column(0).combine_chunks()
        columns[f"{kind}_id"] = ids.take(pa.array(pairs[f"{kind}_index"].to_numpy()[order]))
    columns["timestamp"] = pa.array(FIRST_SECOND + np.arange(len(order)))
    pq.write_table(pa.table(columns), out)


if __name__ == "__main__":
    write_raw(Path(sys.argv[1]), Path(sys.argv[2]))
