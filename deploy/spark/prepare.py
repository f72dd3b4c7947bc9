"""`lowpass data prepare` for interactions that do not fit the memory of one machine, on Spark.

    spark-submit --master local[2] deploy/spark/prepare.py ratings.parquet mydata --user-min 5 --item-min 5

It filters, splits and numbers as `lowpass data prepare` does and leaves a data directory that every command opens. See
README.md beside this file for what it takes and what differs. It needs PySpark and PyArrow, and nothing of Lowpass.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F

FORMAT = 1
"""Of the data directory."""
SPLITS = ("train", "validation", "test")
MISSING_WORDS = ("", "NaN", "nan", "NaT", "None", "null", "NULL", "<NA>", "NA", "N/A", "#N/A", "\\N")
ROWS_OF_A_PARTITION = (1 << 33) - 1
"""`monotonically_increasing_id` has the row's number in the lower 33 bits."""


class BadInput(Exception):
    """The source or a setting is wrong; the message says how to mend it."""


def read_source(spark: SparkSession, options: argparse.Namespace) -> DataFrame:
    """Return the columns `user_id`, `item_id` (strings), and `time` where there is one, rated well enough.

    Raises:
        BadInput: A column is missing or of the wrong type, or an id is empty or a word for a missing value.
    """
    source = str(options.source)
    is_text = any(suffix in source for suffix in (".csv", ".tsv"))
    separator = "\t" if ".tsv" in source else ","
    table = spark.read.csv(source, header=True, sep=separator) if is_text else spark.read.parquet(source)
    wanted = {"user_id": options.user_column, "item_id": options.item_column}
    if options.split == "temporal":
        wanted["time"] = options.timestamp_column
    if options.rating_min is not None:
        wanted["rating"] = options.rating_column
    types = dict(table.dtypes)
    for column in wanted.values():
        if column not in types:
            raise BadInput(f"{source}: no column '{column}'; it has {', '.join(types)}: name it by --…-column")
    for kind in ("user_id", "item_id"):
        if types[wanted[kind]] in {"float", "double"}:
            raise BadInput(f"{source}: column '{wanted[kind]}' is of type {types[wanted[kind]]}; store ids as strings")
    ids = {kind: F.trim(F.col(wanted[kind]).cast("string")) for kind in ("user_id", "item_id")}
    more = {"time": F.col(wanted["time"])} if "time" in wanted else {}
    if is_text and more:
        more = {"time": F.col(wanted["time"]).cast("double")}
    if "rating" in wanted:
        table = table.where(F.col(wanted["rating"]).cast("double") >= options.rating_min)
    rows = table.select(*(value.alias(name) for name, value in (ids | more).items()))
    _require_values(rows, source)
    return rows


def _require_values(rows: DataFrame, source: str) -> None:
    wrong = [F.count(F.when(_is_missing(name), 1)).alias(name) for name in rows.columns]
    for name, count in rows.agg(*wrong).first().asDict().items():
        if count:
            raise BadInput(f"{source}: {count:,} rows have no {name}; fill it in or drop the rows")


def _is_missing(name: str) -> Column:
    missing = F.col(name).isNull()
    return missing if name == "time" else missing | F.col(name).isin(*MISSING_WORDS)


def keep_core(pairs: DataFrame, user_minimum: int, item_minimum: int) -> DataFrame:
    """Drop users and items below their minimum, again and again, until none is left (k-core)."""
    left = pairs.count()
    while max(user_minimum, item_minimum) > 1:
        before = left
        for name, minimum in (("user_id", user_minimum), ("item_id", item_minimum)):
            many = pairs.groupBy(name).count().where(F.col("count") >= minimum).select(name)
            pairs = pairs.join(many, name, "left_semi")
        # Written out, so that no round computes the rounds before it again.
        pairs = pairs.checkpoint()
        left = pairs.count()
        if left == before:
            break
    return pairs


def split(pairs: DataFrame, ratios: tuple[int, int, int], seed: int) -> DataFrame:
    """Add `split`: 0 train, 1 validation, 2 test, of each user's rows by time, or by a hash of their ids.

    Args:
        pairs: `user_id`, `item_id`, and `time` where the split goes by it.
        ratios: Whole parts of train, validation and test.
        seed: Of the hash.
    """
    drawn = F.xxhash64(F.lit(seed), "user_id", "item_id")
    order = [F.col("time"), F.col("item_id")] if "time" in pairs.columns else [drawn, F.col("item_id")]
    mine = Window.partitionBy("user_id")
    train, validation, _ = ratios
    place, count = F.row_number().over(mine.orderBy(*order)) - 1, F.count("*").over(mine)
    train_end = F.greatest(F.floor(count * train / sum(ratios)), F.lit(1))
    validation_end = F.greatest(F.floor(count * (train + validation) / sum(ratios)), train_end)
    part = (place >= train_end).cast("byte") + (place >= validation_end).cast("byte")
    return pairs.select("user_id", "item_id", part.cast("byte").alias("split"))


def number(pairs: DataFrame, kind: str) -> DataFrame:
    """Return `KIND_id` in order and `KIND_index`: 0, 1, 2, … without gaps.

    The ids are sorted into partitions; a row's number is its number there and the rows of the partitions before.
    """
    # Written out: sorted again, the same row could fall into another partition.
    ids = pairs.select(f"{kind}_id").distinct().sort(f"{kind}_id").checkpoint()
    placed = ids.select(
        "*",
        F.spark_partition_id().alias("partition"),
        F.monotonically_increasing_id().bitwiseAND(F.lit(ROWS_OF_A_PARTITION)).alias("place"),
    )
    counts = sorted((row["partition"], row["count"]) for row in placed.groupBy("partition").count().collect())
    ends = np.cumsum([count for _, count in counts]).tolist()
    if not counts:
        raise BadInput("no interaction is left after the filters; lower --rating-min, --user-min or --item-min")
    starts = F.create_map(
        *(F.lit(value) for (partition, count), end in zip(counts, ends, strict=True)
          for value in (partition, end - count))
    )  # fmt: skip
    index = F.element_at(starts, F.col("partition")) + F.col("place")
    return placed.select(f"{kind}_id", index.cast("int").alias(f"{kind}_index"))


def write(pairs: DataFrame, out: Path) -> dict[str, int]:
    """Write ids and interactions, in order, as folders of Parquet parts; return the counts."""
    numbered = pairs
    for kind in ("user", "item"):
        numbers = number(pairs, kind)
        numbers.sort(f"{kind}_index").select(f"{kind}_id").write.parquet(str(out / f"{kind}s.parquet"))
        numbered = numbered.join(numbers, f"{kind}_id")
    columns = ["split", "user_index", "item_index"]
    numbered.select("user_index", "item_index", "split").sort(*columns).write.parquet(str(out / "interactions.parquet"))
    found = ds.dataset(out / "interactions.parquet")
    counts = {kind: ds.dataset(out / f"{kind}.parquet").count_rows() for kind in ("users", "items")}
    return counts | {name: found.count_rows(filter=ds.field("split") == part) for part, name in enumerate(SPLITS)}


def fingerprint(out: Path, num_users: int) -> str:
    """SHA-256 (hex) over ids and splits, as Lowpass computes it, read part by part: 8 bytes a user are held."""
    digest = hashlib.sha256()
    for kind in ("user", "item"):
        separator = "["
        for batch in ds.dataset(out / f"{kind}s.parquet").to_batches():
            ids = json.dumps(batch.column(0).to_pylist())[1:-1]
            if ids:
                digest.update((separator + ids).encode())
                separator = ", "
        digest.update(b"]")
    interactions = ds.dataset(out / "interactions.parquet")
    for part in range(len(SPLITS)):
        counts = np.zeros(num_users, dtype="<i8")
        for users in _column(interactions, part, "user_index"):
            counts += np.bincount(users, minlength=num_users)
        digest.update(np.concatenate([[0], np.cumsum(counts)]).astype("<i8").tobytes())
        for items in _column(interactions, part, "item_index"):
            digest.update(items.astype("<i8").tobytes())
    return digest.hexdigest()


def _column(interactions: ds.Dataset, part: int, name: str) -> Iterator[np.ndarray]:
    for batch in interactions.to_batches(columns=[name], filter=ds.field("split") == part):
        if batch.num_rows:
            yield batch.column(0).to_numpy()


def prepare(spark: SparkSession, options: argparse.Namespace) -> dict[str, object]:
    """Read, filter, split, number and write; return what `dataset.json` holds.

    Raises:
        BadInput: The source or a setting is wrong; nothing is left at `options.out`.
    """
    if options.out.exists():
        raise BadInput(f"{options.out}: exists; give another path for the output")
    draft = Path(tempfile.mkdtemp(prefix=f".{options.out.name}.", suffix=".tmp", dir=options.out.resolve().parent))
    try:
        spark.sparkContext.setCheckpointDir(str(draft / "rounds"))
        rows = read_source(spark, options)
        grouped = rows.groupBy("user_id", "item_id")
        pairs = grouped.agg(F.min("time").alias("time")) if "time" in rows.columns else rows.distinct()
        core = keep_core(pairs.checkpoint(), options.user_min, options.item_min)
        ratios = tuple(map(int, options.ratios.split(":")))
        counts = write(split(core, ratios, options.seed).checkpoint(), draft / "data")
        description = {
            "format": FORMAT,
            "name": options.name or options.out.name,
            "counts": counts,
            "settings": {
                "reader": "spark", "source": Path(options.source).name, "rating_minimum": options.rating_min,
                "user_minimum": options.user_min, "item_minimum": options.item_min, "split": options.split,
                "ratios": options.ratios, "seed": options.seed,
            },
            "fingerprint": fingerprint(draft / "data", counts["users"]),
        }  # fmt: skip
        (draft / "data" / "dataset.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        (draft / "data").rename(options.out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return description


def read_options(words: list[str]) -> argparse.Namespace:
    """Read the command line; options are named as those of `lowpass data prepare`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "source", help="Parquet, or CSV or TSV with a header: a file, a folder of parts, or a URL of Spark's."
    )
    parser.add_argument("out", type=Path, help="Data directory to write, on a file system that all machines share.")
    parser.add_argument("--name")
    parser.add_argument("--split", choices=("temporal", "random"), default="temporal")
    parser.add_argument("--ratios", default="8:1:1")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rating-min", type=float)
    for kind in ("user", "item"):
        parser.add_argument(f"--{kind}-min", type=int, default=0)
        parser.add_argument(f"--{kind}-column", default=f"{kind}_id")
    for kind in ("rating", "timestamp"):
        parser.add_argument(f"--{kind}-column", default=kind)
    options = parser.parse_args(words)
    ratios = options.ratios.split(":")
    if len(ratios) != 3 or not all(part.isdecimal() for part in ratios) or int(ratios[0]) < 1:
        parser.error(f"--ratios '{options.ratios}': give three whole numbers, the first at least 1, such as 8:1:1")
    return options


def main() -> int:
    """Run the job; 2 where the input is at fault."""
    options = read_options(sys.argv[1:])
    spark = SparkSession.builder.appName("lowpass data prepare").getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    try:
        sys.stdout.write(json.dumps(prepare(spark, options)) + "\n")
    except BadInput as error:
        sys.stderr.write(f"prepare: {error}\n")
        return 2
    finally:
        spark.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
