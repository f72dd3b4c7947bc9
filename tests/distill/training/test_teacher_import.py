from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.data.interactions import Interactions
from distill.errors import DataError, RunError
from distill.evaluation.protocol import evaluate
from distill.run import open_run
from distill.training.job import Job, run_job
from distill.training.teacher_import import import_embeddings, read_embeddings
from distill.training.trainer import TrainingOptions
from tests.distill.toy import build_random

IDS = np.array(["u0", "u1", "u2"])


@pytest.fixture
def data(rng: np.random.Generator) -> Interactions:
    return build_random(rng)


def save_parquet(path: Path, ids: list[Any], rows: Any, column: str = "embedding") -> Path:
    pq.write_table(pa.table({"id": ids, column: list(rows)}), path)
    return path


def test_npy_and_shuffled_parquet_make_the_same_run(
    data: Interactions, rng: np.random.Generator, tmp_path: Path
) -> None:
    users = rng.normal(size=(data.num_users, 6))
    items = rng.normal(size=(data.num_items, 6)).astype(np.float32)
    np.save(tmp_path / "users.npy", users)
    np.save(tmp_path / "items.npy", items)
    import_embeddings(data, tmp_path / "users.npy", tmp_path / "items.npy", tmp_path / "plain", "mine")
    order = rng.permutation(data.num_items)
    shuffled = save_parquet(tmp_path / "items.parquet", data.item_ids[order].tolist(), items[order].tolist())
    metrics = import_embeddings(data, tmp_path / "users.npy", shuffled, tmp_path / "parquet", "mine")
    one, two = open_run(tmp_path / "plain"), open_run(tmp_path / "parquet")
    np.testing.assert_array_equal(one.user_embeddings, users.astype(np.float32))
    np.testing.assert_array_equal(one.item_embeddings, items)
    np.testing.assert_array_equal(two.item_embeddings, items)
    assert one.metrics == two.metrics == metrics
    assert metrics["test"] == evaluate(users.astype(np.float32), items, data).as_dict()
    assert (one.config["backbone"], one.config["method"], one.config["dim"]) == ("mine", "imported", 6)


def test_an_imported_teacher_can_be_distilled(data: Interactions, rng: np.random.Generator, tmp_path: Path) -> None:
    for name, size in (("users", data.num_users), ("items", data.num_items)):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(size, 6)).astype(np.float32))
    import_embeddings(data, tmp_path / "users.npy", tmp_path / "items.npy", tmp_path / "teacher", "mine")
    job = Job("bprmf", "freqd", 4, options=TrainingOptions(epochs=2, eval_every=2))
    metrics = run_job(job, data, tmp_path / "student", teacher=open_run(tmp_path / "teacher"))
    assert metrics["training"]["epochs"] == 2


def test_more_ids_than_the_data_has_are_left_out(tmp_path: Path) -> None:
    path = save_parquet(tmp_path / "a.parquet", ["u2", "spare", "u0", "u1"], [[2.0], [9.0], [0.0], [1.0]])
    assert read_embeddings(path, IDS).tolist() == [[0.0], [1.0], [2.0]]


def test_integer_ids_match_their_text(tmp_path: Path) -> None:
    path = save_parquet(tmp_path / "a.parquet", [7, 5], [[7.0], [5.0]])
    assert read_embeddings(path, np.array(["5", "7"])).tolist() == [[5.0], [7.0]]


def npy(array: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "a.npy", array)
        return folder / "a.npy"

    return write


def parquet(ids: list[Any], rows: Any, column: str = "embedding") -> Callable[[Path], Path]:
    return lambda folder: save_parquet(folder / "a.parquet", ids, rows, column)


def raw(name: str, content: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def several_arrays(folder: Path) -> Path:
    np.savez(folder / "a.npz", one=np.ones((3, 2)), two=np.ones((3, 2)))
    return folder / "a.npz"


ROWS = [[1.0, 2.0]] * 3


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda folder: folder / "absent.npy", "unreadable embeddings"),
        (raw("a.npy", b""), "unreadable embeddings"),
        (raw("a.npy", b"1,2\n3,4\n"), "unreadable embeddings"),
        (raw("a.parquet", b"PAR1 but not really"), "unreadable embeddings"),
        (several_arrays, "unreadable embeddings"),
        (npy(np.ones((4, 2))), r"shape \(4, 2\) where \(3, d\) is needed"),
        (npy(np.ones(3)), r"shape \(3,\) where \(3, d\) is needed"),
        (npy(np.array([[1.0], [np.nan], [2.0]])), "not finite"),
        (npy(np.array([["a"], ["b"], ["c"]])), "not finite numbers"),
        (parquet(["u0", "u1", "u1"], ROWS), "column 'id' has duplicates"),
        (parquet(["u0", "u1", "x"], ROWS), "column 'id' lacks 1 ids of the data, 'u2' first"),
        (parquet(["u0", "u1", "u2"], [[1.0], [1.0, 2.0], [1.0]]), "lists of different lengths"),
        (parquet(["u0", "u1", "u2"], ROWS, column="vector"), "column 'embedding' is missing"),
        (parquet(["u0", "u1", "u2"], [[1.0], None, [1.0]]), "unreadable embeddings"),
        (parquet(["u0", "u1", "u2"], [1.0, 2.0, 3.0]), "unreadable embeddings"),
        (parquet(["u0", "u1", "u2"], [["a"], ["b"], ["c"]]), "unreadable embeddings"),
    ],
)
def test_each_way_of_being_wrong_has_its_message(tmp_path: Path, write: Callable[[Path], Path], message: str) -> None:
    path = write(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        read_embeddings(path, IDS)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_dimensions_that_differ_are_refused_and_nothing_is_written(data: Interactions, tmp_path: Path) -> None:
    np.save(tmp_path / "users.npy", np.ones((data.num_users, 3)))
    np.save(tmp_path / "items.npy", np.ones((data.num_items, 4)))
    with pytest.raises(DataError, match=r"embeddings are 4 wide, those of .*users.npy 3"):
        import_embeddings(data, tmp_path / "users.npy", tmp_path / "items.npy", tmp_path / "run", "mine")
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_never_overwritten(data: Interactions, tmp_path: Path) -> None:
    np.save(tmp_path / "users.npy", np.ones((data.num_users, 3)))
    np.save(tmp_path / "items.npy", np.ones((data.num_items, 3)))
    arguments = (data, tmp_path / "users.npy", tmp_path / "items.npy", tmp_path / "run", "mine")
    import_embeddings(*arguments)
    with pytest.raises(RunError, match="a finished run is there"):
        import_embeddings(*arguments)
