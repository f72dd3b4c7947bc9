"""Two ranks beside one process, as a table: the same step, half the memory, the bytes that are sent.

    python -m tests.benchmarks.sharded [--users 6000 --items 4000 --dim 64 --batch-size 2048]

It says nothing of speed: two ranks on one machine share its cores.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

import lowpass
from distill.data.interactions import save_interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from tests.distill.distributed.traffic import formula

STEPS = ("bpr", "freqd", "ce, all items", "ce, few items")


def measure(users: int, items: int, dim: int, batch_size: int, folder: Path) -> dict[str, Any]:
    """Make data and a teacher, and let two ranks report."""
    save_interactions(synthesize(SyntheticOptions(num_users=users, num_items=items)), folder / "data")
    words = [
        "train",
        folder / "data",
        "--out",
        folder / "teacher",
        "--dim",
        "128",
        "--epochs",
        "2",
        "--eval-every",
        "2",
    ]
    if lowpass.main([*map(str, words), "--patience", "2"]):
        raise SystemExit("no teacher")
    ranks = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = ["-m", "tests.distill.distributed.two_ranks", folder / "data", folder / "teacher", folder, dim, batch_size]
    subprocess.run([*ranks, *map(str, script)], check=True)
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


@click.command()
@click.option("--users", default=6000, show_default=True)
@click.option("--items", default=4000, show_default=True)
@click.option("--dim", default=64, show_default=True)
@click.option("--batch-size", default=2048, show_default=True)
def main(users: int, items: int, dim: int, batch_size: int) -> None:
    """Print the table of two ranks."""
    with tempfile.TemporaryDirectory() as name:
        found = measure(users, items, dim, batch_size, Path(name))
    rows = []
    for step in STEPS:
        sent = [sum(part.values()) for part in found[step]["sent"]]
        wanted = [formula(found[step], rank, 4 * dim) for rank in range(2)]
        rows.append([step, f"{found[step]['step']:.3g}", f"{found[step]['error']:.1e}",
                     *(f"{value:,}" for value in (*sent, *wanted))])  # fmt: skip
    heads = ["step of SGD", "largest move", "off one process", "sent by 0", "by 1", "formula of 0", "of 1"]
    click.echo(tabulate(rows, heads, tablefmt="github", disable_numparse=True))
    memory = found["memory"]
    shares = ", ".join(f"{part:,} bytes ({part / memory['whole']:.1%})" for part in memory["ranks"])
    click.echo(f"\nrows and state of the optimiser: {shares} of {memory['whole']:,}")
    unscaled = found["bpr, loss not scaled"]
    click.echo(
        f"BPR without the factor of the ranks: off by {unscaled['error']:.3g} of a move of {unscaled['step']:.3g}"
    )


if __name__ == "__main__":
    main()
