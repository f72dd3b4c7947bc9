"""What a user, an item, an answer and a load cost: the unit costs behind "What a deployment takes" in DESIGN.md.

    python -m tests.benchmarks.unit_costs WORK

writes bundles of invented vectors (32 float32 numbers, 50 seen items a user, ids of 12 bytes, IVF4√I,SQ8) in two sizes
under WORK, and prints: bytes a row of each file, as the difference of the two over that of their rows; processor time
an answer, of a server that real clients ask; and processor seconds a gigabyte of loading. Minutes; what is there is not
written again. Recall is not looked at: `nprobe` is what a million trained vectors took for 0.98 (docs/measuring.md).
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import faiss
import numpy as np
import psutil
from tabulate import tabulate

from export.build.ann import write_index
from export.build.onnx_graphs import write_fold_in_graph, write_recommend_graph
from export.bundle import Bundle, BundleContents, IndexCard, Manifest, ModelCard, ModelRepository, open_bundle
from export.bundle.manifest import INDEX_FILE, MANIFEST_FILE, RECOMMEND_FILE
from export.bundle.writer import OF_USERS
from serve.answers.indexes.faiss_index import FaissIndex
from serve.answers.types import Query
from serve.client.recommender import RecommenderClient
from serve.live.loader import build_recommender, choose_index
from tests.serve.processes import serving

DIM, SEEN, CLUSTERS = 32, 50, 500
SEARCH = {"nprobe": 16, "k_factor": 4}
OWN = [("grpc.use_local_subchannel_pool", 1)]
GIGABYTE = 1e9


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--sizes", nargs=4, type=int, default=(100_000, 50_000, 200_000, 400_000), help="Users, items; twice.")
@click.option("--answers", default=4000, show_default=True, help="Requests to each server.")
def main(work: Path, sizes: tuple[int, int, int, int], answers: int) -> None:
    """Measure the unit costs; bundles are kept in WORK."""
    bundles = [publish(work, users, items) for users, items in (sizes[:2], sizes[2:])]
    print_bytes(bundles)
    print_answers(bundles, work, answers)
    print_loads(bundles)


def publish(work: Path, users: int, items: int) -> Bundle:
    """A bundle of clustered random vectors; the one that is there, where it is."""
    repository, name = ModelRepository(work), f"u{users}-i{items}"
    if name in repository.models():
        return open_bundle(repository.resolve(name), verify=False)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLUSTERS, DIM))
    vectors = [
        (centres[rng.integers(CLUSTERS, size=rows)] + 0.5 * rng.normal(size=(rows, DIM))).astype(np.float32)
        for rows in (users, items)
    ]
    contents = BundleContents(
        user_ids=[f"user{row:08d}" for row in range(users)],
        item_ids=[f"item{row:08d}" for row in range(items)],
        user_embeddings=vectors[0],
        item_embeddings=vectors[1],
        seen_indptr=np.arange(users + 1) * SEEN,
        seen_indices=np.sort(rng.integers(items, size=(users, SEEN)), axis=1).ravel(),
        popularity=rng.permutation(items),
        fold_in_embeddings=vectors[1],
    )
    factory = f"IVF{4 * round(items**0.5)},SQ8"

    def write_graphs(draft: Path) -> None:
        index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
        faiss.extract_index_ivf(index).cp.max_points_per_centroid = 40  # of 256: a sixth of the training
        index.train(vectors[1])
        index.add(vectors[1])
        write_index(index, draft / INDEX_FILE)
        write_recommend_graph(draft)
        write_fold_in_graph(draft)

    card = ModelCard(name, "", "bprmf", "invented", DIM, (users + items) * DIM)
    index_card = IndexCard(factory, SEARCH, 0.0, 20, DIM, [])
    about = {"name": "invented", "fingerprint": ""}
    manifest = Manifest(2, "", "unit_costs", "2026-01-01T00:00:00+00:00", card, {}, {}, about, index_card, {}, {})
    return open_bundle(repository.publish(manifest, contents, write_graphs), verify=False)


def print_bytes(bundles: Sequence[Bundle]) -> None:
    """Bytes a row of each file: what grows with the rows, and what stays."""
    small, large = bundles
    totals: dict[str, float] = defaultdict(float)
    table = []
    for name in sorted(large.manifest.files):
        if name in (MANIFEST_FILE, RECOMMEND_FILE) or name.endswith(".onnx"):
            continue
        kind = "user" if name.startswith(OF_USERS) else "item"
        rows = [len(bundle.user_ids if kind == "user" else bundle.item_ids) for bundle in bundles]
        sizes = [bundle.manifest.files[name].bytes for bundle in bundles]
        slope = (sizes[1] - sizes[0]) / (rows[1] - rows[0])
        totals[kind] += slope
        table.append([kind, name, *sizes, slope])
    table += [[kind, "together", "", "", total] for kind, total in totals.items()]
    columns = [f"{len(bundle.user_ids):,} × {len(bundle.item_ids):,}" for bundle in (small, large)]
    show(table, ("of", "file", *(f"bytes at {column}" for column in columns), "bytes a row"))


def print_answers(bundles: Sequence[Bundle], work: Path, answers: int) -> None:
    """Processor time of one answer: the recommender's own, and all that a server spends on it."""
    table = []
    for bundle in bundles:
        name, users = bundle.manifest.model.name, bundle.user_ids.take(range(0, len(bundle.user_ids), 7))
        recommender = build_recommender(bundle, name, choose_index(bundle, name))
        queries = [Query(users[number % len(users)]) for number in range(answers)]
        row: list[object] = [f"{len(bundle.item_ids):,}", search_time(bundle, answers)]
        started = time.process_time()
        for query in queries:
            recommender.recommend([query])
        row.append((time.process_time() - started) / answers * 1e6)
        for transport in ("grpcio", "native"):
            options = ["--repository", str(work), "--model", name, "--threads", "1", "--no-verify", "--max-wait", "0"]
            with serving(work, *options, "--transport", transport) as server:
                row.append(ask(server.address, server.process.pid, users, answers))
            (work / "ready.json").unlink(missing_ok=True)
        table.append(row)
    show(table, ("items", "search, µs", "with all else but the server, µs", "grpcio server, µs", "native server, µs"))


def search_time(bundle: Bundle, answers: int) -> float:
    """Microseconds of the index alone, a question at a time, each for the seen items and ten more."""
    index = FaissIndex.open(bundle.index_path, SEARCH, np.asarray(bundle.item_embeddings), in_memory=False)
    vectors = np.asarray(bundle.user_embeddings[: answers * 7 : 7], dtype=np.float32)
    started = time.process_time()
    for vector in vectors:
        index.search(vector[None], SEEN + 10)
    return (time.process_time() - started) / len(vectors) * 1e6


def ask(address: str, pid: int, users: Sequence[str], answers: int, callers: int = 8) -> float:
    """Microseconds of a server's processor an answer, at `callers` requests in flight."""
    process = psutil.Process(pid)

    def run(number: int, count: int) -> None:
        with RecommenderClient(address, timeout=60.0, options=OWN) as client:
            for place in range(count):
                client.recommend(users[(number * count + place) % len(users)], k=10)

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(run, range(callers), [answers // callers // 4] * callers))  # warm
        before = process.cpu_times()
        list(pool.map(run, range(callers), [answers // callers] * callers))
        after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / answers * 1e6


def print_loads(bundles: Sequence[Bundle]) -> None:
    """Processor seconds of opening a bundle and building its recommender, with and without reading every byte."""
    table = []
    for bundle in bundles:
        size = bundle.manifest.total_bytes / GIGABYTE
        row: list[object] = [f"{size:.3f} GB"]
        for verify in (True, False):
            started = time.process_time()
            opened = open_bundle(bundle.path, verify=verify)
            build_recommender(opened, "student", choose_index(opened, "student"))
            spent = time.process_time() - started
            row += [spent, spent / size]
        table.append(row)
    show(table, ("bundle", "verified, s", "s a GB", "unverified, s", "s a GB"))


def show(table: Sequence[Sequence[object]], header: Sequence[str]) -> None:
    """Print a table and an empty line."""
    click.echo(tabulate(table, header, tablefmt="pipe", floatfmt=".1f", intfmt=",") + "\n")


if __name__ == "__main__":
    main()
