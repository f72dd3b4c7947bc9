"""A teacher of known truth for invented data: embeddings made of the tastes that the data was drawn from.

    python -m tests.benchmarks.scale.teacher DATA OUT

A user u takes item i with a chance that goes by popularity(i) · (breadth + mixture_u[cluster(i)]). Its logarithm is
an inner product: log popularity is a coordinate of its own, and w_u = log(1 + mixture_u / breadth), which is 0 but for
a few clusters, meets the cluster of the item. Clusters are projected at random to the other numbers (Achlioptas,
"Database-friendly random projections", JCSS 2003), and noise makes every row an own one, as in trained embeddings.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from distill.data.interactions import Interactions, load_interactions
from distill.data.synthetic import SyntheticOptions, known_tastes

NUMBERS = 256
NOISE = 0.25
"""Length of a row's noise, against 1 of a cluster's direction."""
BLOCK_ROWS = 16_384


def write_teacher(data: Interactions, out: Path, *, numbers: int = NUMBERS, seed: int = 0) -> None:
    """Write `users.npy` and `items.npy`: float16, shapes (|U|, numbers) and (|I|, numbers), in the order of the data.

    Args:
        data: What `lowpass data synth` made.
        out: Folder to write into.
        numbers: An embedding's.
        seed: Of the directions and of the noise.
    """
    options = SyntheticOptions(**data.settings["synthetic"])
    truth = known_tastes(options)
    rng = np.random.default_rng(seed)
    directions = rng.choice([-1.0, 1.0], (options.num_clusters, numbers - 1)).astype(np.float32) / np.sqrt(numbers - 1)
    out.mkdir(parents=True, exist_ok=True)
    users, items = _numbers(data.user_ids), _numbers(data.item_ids)
    popularity = np.log(truth.popularity / truth.popularity.min()).astype(np.float32)
    scale = np.float32(popularity.std())

    def user_rows(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        weights = np.log1p(truth.weights[rows, :-1] / options.breadth).astype(np.float32)
        liked = np.einsum("ut,utd->ud", weights, directions[truth.tastes[rows]])
        return np.hstack([liked, np.full((len(rows), 1), scale)])

    def item_rows(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return np.hstack([directions[truth.cluster[rows]], popularity[rows, None] / scale])

    _write(out / "users.npy", users, user_rows, numbers, rng)
    _write(out / "items.npy", items, item_rows, numbers, rng)


def _write(
    path: Path,
    order: npt.NDArray[np.int64],
    make: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]],
    numbers: int,
    rng: np.random.Generator,
) -> None:
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=(len(order), numbers))
    for first in range(0, len(order), BLOCK_ROWS):
        block = make(order[first : first + BLOCK_ROWS])
        noise = rng.standard_normal(block[:, :-1].shape, dtype=np.float32)
        block[:, :-1] += noise * (NOISE / np.sqrt(numbers - 1))
        rows[first : first + BLOCK_ROWS] = block
    rows.flush()


def _numbers(ids: npt.NDArray[np.str_]) -> npt.NDArray[np.int64]:
    """Return the numbers in "u0001", "u0002", …, from 0."""
    return np.char.lstrip(ids, "ui").astype(np.int64) - 1


def main() -> None:
    data, out = (Path(word) for word in sys.argv[1:])
    write_teacher(load_interactions(data), out)


if __name__ == "__main__":
    main()
