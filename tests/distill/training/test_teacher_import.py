from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.baselines.neighbors import popularity
from distill.data.interactions import Interactions
from distill.errors import DataError, RunError, SettingError
from distill.evaluation.protocol import evaluate, evaluate_scores
from distill.run import open_run
from distill.training.job import Job, run_job
from distill.training.teacher import score_temperature
from distill.training.teacher_import import import_embeddings, read_embeddings
from distill.training.trainer import TrainingOptions
from tests.distill.toy import build_checkerboard, build_random

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
    assert two.metrics == metrics
    assert [one.metrics[split] for split in ("validation", "test")] == [metrics["validation"], metrics["test"]]
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
    embeddings, understood = read_embeddings(path, IDS)
    assert embeddings.tolist() == [[0.0], [1.0], [2.0]]
    assert understood == "in order by the ids of a.parquet, 1 rows of ids the data lacks left out"


def test_integer_ids_match_their_text(tmp_path: Path) -> None:
    path = save_parquet(tmp_path / "a.parquet", [7, 5], [[7.0], [5.0]])
    assert read_embeddings(path, np.array(["5", "7"]))[0].tolist() == [[5.0], [7.0]]


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


def told(shape: str) -> Callable[[Path], Path]:
    """A `.npy` whose header tells of a shape, with 24 numbers behind it."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117).encode() + b"\n"
    return raw("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(96))


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
        (told(f"({10**30}, 8)"), "unreadable embeddings"),
        (told("(3, 1000000000000)"), "unreadable embeddings"),
        (told("(3, 4)"), r"48 bytes stand behind the \(3, 4\) array that its header tells of"),
        (npy(np.ones((4, 2))), r"shape \(4, 2\) where \(3, d\) is needed"),
        (npy(np.ones(3)), r"shape \(3,\) where \(3, d\) is needed"),
        (npy(np.array([[1.0], [np.nan], [2.0]])), "not finite"),
        (npy(np.array([["a"], ["b"], ["c"]])), "values of type <U1, not real numbers"),
        (npy(np.array([[1.0], [1e39], [-1e39]])), "as float32 2 of 3 numbers are not finite, the first in row 1"),
        (npy(np.full((3, 2), 1e25)), "row 0 has length 1.4e[+]25, and scores of rows beyond 1.8e[+]19 overflow"),
        (npy(np.ones((3, 0))), "dimension 0"),
        (npy(np.ones((3, 2)) + 1j), r"complex numbers \(complex128\), not real .*save as float32"),
        (npy(np.ones((3, 2), np.uint16).view("V2")), r"bfloat16 \(dtype V2\).*save as float32"),
        (npy(np.ones((3, 2), bool)), "values of type bool"),
        (parquet(["u0", "u1", "u2"], [[], [], []]), "dimension 0|unreadable"),
        (parquet(["u0", "u1", "u2"], [[1.0], [1e39], [1.0]]), "as float32 1 of 3 numbers are not finite"),
        (parquet(["u0", "u1", "u1"], ROWS), "1 ids are duplicates, 'u1' stands 2 times"),
        (parquet(["u0", "u1", "x"], ROWS), "lacks 1 of the data's 3 ids, 'u2' first"),
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


def test_numbers_that_no_float32_holds_write_no_run(data: Interactions, tmp_path: Path) -> None:
    np.save(tmp_path / "users.npy", np.ones((data.num_users, 3)) * 1e39)
    np.save(tmp_path / "items.npy", np.ones((data.num_items, 3)))
    with pytest.raises(DataError, match=r"users\.npy: as float32 90 of 90 numbers are not finite"):
        import_embeddings(data, tmp_path / "users.npy", tmp_path / "items.npy", tmp_path / "run", "mine")
    assert not (tmp_path / "run").exists()


def test_rows_in_another_order_are_put_right_by_their_ids_and_told_without_them(tmp_path: Path) -> None:
    data = build_checkerboard(60)
    known = np.eye(2, dtype=np.float32)[np.arange(60) % 2] * 2 - 1
    order = np.roll(np.arange(60), 1)
    np.save(tmp_path / "users.npy", known[order])
    np.save(tmp_path / "items.npy", known)
    (tmp_path / "ids.txt").write_text("".join(f"{value}\n" for value in data.user_ids[order]))
    files = tmp_path / "users.npy", tmp_path / "items.npy"
    trusted = import_embeddings(data, *files, tmp_path / "trusted", "mine")
    ordered = import_embeddings(data, *files, tmp_path / "ordered", "mine", users_ids=tmp_path / "ids.txt")
    assert trusted["test"]["Recall@20"] < ordered["test"]["Recall@20"] == 1
    assert "no better than popularity" in trusted["import"]["doubt"]
    assert trusted["import"]["users"] == "order of rows taken on trust, since users.npy has no ids"
    assert ordered["import"]["doubt"] is None
    assert ordered["import"]["users"] == "in order by the ids of ids.txt"
    np.testing.assert_array_equal(open_run(tmp_path / "ordered").user_embeddings, known)


def test_ids_must_be_as_many_as_rows_and_stand_once(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    for lines, message in (
        (["u0", "u1"], r"a\.npy: shape \(3, 2\) where \(2, d\) is needed; one row for each id of .*ids\.txt"),
        (["u0", "u1", "u1"], r"ids\.txt: 1 ids are duplicates, 'u1' stands 2 times"),
        (["u0", "u1", "v"], r"ids\.txt: lacks 1 of the data's 3 ids, 'u2' first"),
    ):
        (tmp_path / "ids.txt").write_text("\n".join(lines))
        with pytest.raises(DataError, match=message):
            read_embeddings(tmp_path / "a.npy", IDS, tmp_path / "ids.txt")


def test_ids_beside_a_file_that_has_its_own_are_refused(tmp_path: Path) -> None:
    path = save_parquet(tmp_path / "a.parquet", ["u0", "u1", "u2"], ROWS)
    with pytest.raises(SettingError, match="has ids of its own"):
        read_embeddings(path, IDS, tmp_path / "ids.txt")


def test_half_precision_stays_half_and_is_ranked_as_single(
    data: Interactions, rng: np.random.Generator, tmp_path: Path
) -> None:
    for name, size in (("users", data.num_users), ("items", data.num_items)):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(size, 6)).astype(np.float16))
    metrics = import_embeddings(data, tmp_path / "users.npy", tmp_path / "items.npy", tmp_path / "run", "mine")
    run = open_run(tmp_path / "run", data)
    assert run.user_embeddings.dtype == run.item_embeddings.dtype == np.float16
    wide = run.user_embeddings.astype(np.float32), run.item_embeddings.astype(np.float32)
    assert metrics["test"] == evaluate(*wide, data).as_dict()
    full = replace(run, user_embeddings=wide[0], item_embeddings=wide[1])
    assert run.recommend("u3") == full.recommend("u3")
    assert run.similar_items("i3") == full.similar_items("i3")
    assert score_temperature(run) == score_temperature(full)
    job = Job("bprmf", "freqd", 4, options=TrainingOptions(epochs=2, eval_every=2), start="svd")
    students = [run_job(job, data, tmp_path / name, teacher=one) for name, one in (("a", run), ("b", full))]
    assert students[0]["test"] == students[1]["test"]


def test_a_npy_in_the_datas_order_is_mapped(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((3, 2), np.float32))
    embeddings, _ = read_embeddings(tmp_path / "a.npy", IDS)
    assert embeddings.base is not None
    embeddings[0] = 7
    assert np.load(tmp_path / "a.npy", allow_pickle=False).max() == 1, "what is written stays in memory"


@pytest.mark.parametrize("dtype", [">f4", "<f8", "i4", ">f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_form_of_npy_is_read(tmp_path: Path, dtype: str, order: Any) -> None:
    rows = np.arange(6).reshape(3, 2)
    np.save(tmp_path / "a.npy", np.asarray(rows, dtype=dtype, order=order))
    embeddings, _ = read_embeddings(tmp_path / "a.npy", IDS)
    assert embeddings.tolist() == rows.tolist()
    assert embeddings.dtype == (np.float16 if dtype == ">f2" else np.float32)


def test_quality_is_measured_on_the_asked_number_of_users(
    data: Interactions, rng: np.random.Generator, tmp_path: Path
) -> None:
    for name, size in (("users", data.num_users), ("items", data.num_items)):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(size, 6)).astype(np.float32))
    files = tmp_path / "users.npy", tmp_path / "items.npy"
    metrics = import_embeddings(data, *files, tmp_path / "run", "mine", eval_users=5)
    for reports in (metrics, metrics["import"]["popularity"]):
        assert reports["test"]["num_users"] == 5
        assert "mean over 5 of 20 users with relevant items" in reports["test"]["convention"]


def test_popularity_is_that_of_the_baseline(data: Interactions, rng: np.random.Generator, tmp_path: Path) -> None:
    for name, size in (("users", data.num_users), ("items", data.num_items)):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(size, 6)).astype(np.float32))
    metrics = import_embeddings(data, tmp_path / "users.npy", tmp_path / "items.npy", tmp_path / "run", "mine")
    popular = evaluate_scores(popularity(data.train).score_rows, data).as_dict()
    assert metrics["import"]["popularity"]["test"] == popular
