"""Going on from yesterday's run: rows follow their ids, new ones are what the formula says, and what does not fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import distill.training.continuation
from distill.data.interactions import Interactions, build_user_items
from distill.errors import RunError, SettingError
from distill.run import ID_FILES, Run, match_ids, open_run, read_ids, write_ids, write_run
from distill.training.continuation import CONTINUED_DEFAULTS, Continued, open_continued, place_new_rows
from distill.training.job import Job, build_job, command_line, describe, large_defaults, run_job
from tests.distill.toy import build_checkerboard, build_interactions

DIM = 3
YESTERDAY = build_interactions((4, 5), [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2), (2, 3), (3, 3), (3, 4)])


def today() -> Interactions:
    """Yesterday's ids in another order, without u3 and i4; users "new", "alone" and items "n0", "n1" come."""
    users = np.array(["new", "u2", "u0", "alone", "u1"])
    items = np.array(["i3", "n0", "i1", "i0", "i2", "n1", "nobody"])
    pairs = [("new", "i0"), ("new", "i2"), ("new", "n0"), ("u2", "i2"), ("u2", "i3"), ("u2", "n0"), ("u0", "i0"),
             ("u0", "i1"), ("u0", "n0"), ("u1", "i1"), ("u1", "i2"), ("new", "n1")]  # fmt: skip
    rows = np.array([[users.tolist().index(user), items.tolist().index(item)] for user, item in pairs])
    empty = build_user_items(np.empty(0, np.int64), np.empty(0, np.int64), (5, 7))
    train = build_user_items(rows[:, 0], rows[:, 1], (5, 7))
    return Interactions("today", users, items, train, empty, empty)


def write_yesterday(path: Path, data: Interactions = YESTERDAY, dim: int = DIM, method: str = "scratch") -> Run:
    rng = np.random.default_rng(3)
    users, items = (rng.normal(size=(size, dim)).astype(np.float32) for size in (data.num_users, data.num_items))
    config = {"format": 1, "backbone": "bprmf", "method": method, "dim": dim, "seed": 0,
              "data": {"name": data.name, "fingerprint": data.fingerprint}, "teacher": None}  # fmt: skip
    write_ids(path, data.user_ids, data.item_ids)
    write_run(path, config, users, items, {})
    return open_run(path)


def fresh(data: Interactions) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    return np.full((data.num_users, DIM), 0.25, np.float32), np.full((data.num_items, DIM), 0.5, np.float32)


def test_kept_rows_follow_their_ids_through_another_order(tmp_path: Path) -> None:
    run, data = write_yesterday(tmp_path), today()
    users, items = open_continued(tmp_path, "bprmf", "scratch", DIM, data).rows(data.train, *fresh(data))
    for name, row in (("u0", 0), ("u1", 1), ("u2", 2)):
        np.testing.assert_array_equal(users[data.user_ids.tolist().index(name)], run.user_embeddings[row])
    for name, row in (("i0", 0), ("i1", 1), ("i2", 2), ("i3", 3)):
        np.testing.assert_array_equal(items[data.item_ids.tolist().index(name)], run.item_embeddings[row])


def test_new_rows_are_the_mean_of_their_neighbours_at_the_fitted_length(tmp_path: Path) -> None:
    """The formula of the module's docstring, by hand and in float64: n0 of u2 and u0, then "new", then n1 of "new"."""
    run, data = write_yesterday(tmp_path), today()
    users, items = open_continued(tmp_path, "bprmf", "scratch", DIM, data).rows(data.train, *fresh(data))
    x = run.user_embeddings.astype(np.float64)
    y = run.item_embeddings.astype(np.float64)

    def length(rows: list[npt.NDArray[np.float64]], means: list[npt.NDArray[np.float64]]) -> float:
        return float((np.array(rows) * means).sum() / np.square(means).sum())

    item_means = [x[0], (x[0] + x[1]) / 2, (x[1] + x[2]) / 2, x[2]]
    n0 = length(list(y[:4]), item_means) * (x[0] + x[2]) / 2
    user_means = [(y[0] + y[1] + n0) / 3, (y[1] + y[2]) / 2, (y[2] + y[3] + n0) / 3]
    new = length(list(x[:3]), user_means) * (y[0] + y[2] + n0) / 3
    all_means = [(x[0] + new) / 2, (x[0] + x[1]) / 2, (x[1] + x[2] + new) / 3, x[2], (x[0] + x[2] + new) / 3]
    n1 = length([*y[:4], n0], all_means) * new
    np.testing.assert_allclose(items[1], n0, rtol=1e-5)
    np.testing.assert_allclose(users[0], new, rtol=1e-5)
    np.testing.assert_allclose(items[5], n1, rtol=1e-5)


def test_who_has_no_known_neighbour_keeps_the_backbones_draw(tmp_path: Path) -> None:
    write_yesterday(tmp_path)
    data = today()
    users, items = open_continued(tmp_path, "bprmf", "scratch", DIM, data).rows(data.train, *fresh(data))
    np.testing.assert_array_equal(users[3], 0.25)
    np.testing.assert_array_equal(items[6], 0.5)


def test_a_fitted_length_of_nothing_writes_nothing() -> None:
    rows, others = np.ones((2, DIM), np.float32), np.zeros((2, DIM), np.float32)
    taken = build_user_items(np.array([0, 1]), np.array([0, 1]), (2, 2))
    assert not place_new_rows(rows, np.array([True, False]), others, np.array([True, True]), taken).any()
    np.testing.assert_array_equal(rows, 1)


def test_who_vanished_is_counted_by_nobody_and_takes_no_row(tmp_path: Path) -> None:
    run, data = write_yesterday(tmp_path), today()
    found = open_continued(tmp_path, "bprmf", "scratch", DIM, data)
    users, items = found.rows(data.train, *fresh(data))
    assert not any((rows == run.user_embeddings[3]).all(axis=1).any() for rows in (users, items))
    assert found.report() == {
        "from": str(tmp_path), "users_kept": 3, "users_new": 2, "items_kept": 4, "items_new": 3, "doubt": None,
    }  # fmt: skip


def test_ids_are_matched_whatever_their_order_and_length() -> None:
    before, now = np.array(["b", "a", "ccc"]), np.array(["a", "zz", "ccc", "b", "A"])
    np.testing.assert_array_equal(match_ids(before, now), [1, -1, 2, 0, -1])
    np.testing.assert_array_equal(match_ids(np.array([], dtype=np.str_), now), [-1] * 5)


@pytest.mark.parametrize(
    ("backbone", "method", "dim", "says"),
    [
        ("bprmf", "scratch", 4, r"its dim is 3 and not 4; give --dim 3"),
        ("bprmf", "ce", DIM, "its method is 'scratch' and not 'ce'; give --method scratch"),
        ("ials", "scratch", DIM, "its backbone is 'bprmf' and not 'ials'; give --backbone bprmf"),
        ("lightgcn", "scratch", DIM, "backbone 'lightgcn' makes its embeddings of a table.*that can go on: bprmf"),
    ],
)
def test_a_run_of_another_kind_is_refused(tmp_path: Path, backbone: str, method: str, dim: int, says: str) -> None:
    write_yesterday(tmp_path)
    with pytest.raises(RunError, match=says):
        open_continued(tmp_path, backbone, method, dim, today())


def test_a_run_without_ids_or_of_strangers_is_refused(tmp_path: Path) -> None:
    write_yesterday(tmp_path)
    strangers = replace(today(), user_ids=np.array([f"x{row}" for row in range(5)]))
    with pytest.raises(RunError, match="no user id in common with data set 'today'"):
        open_continued(tmp_path, "bprmf", "scratch", DIM, strangers)
    (tmp_path / ID_FILES["item_id"]).unlink()
    with pytest.raises(RunError, match=r"items.parquet: missing.*evaluate .* --data DATA --save"):
        open_continued(tmp_path, "bprmf", "scratch", DIM, today())
    (tmp_path / ID_FILES["item_id"]).write_bytes(b"PAR1 no")
    with pytest.raises(RunError, match=r"items\.parquet: unreadable ids"):
        open_continued(tmp_path, "bprmf", "scratch", DIM, today())
    shutil.copy(tmp_path / ID_FILES["user_id"], tmp_path / ID_FILES["item_id"])
    with pytest.raises(RunError, match=r"items\.parquet: unreadable ids"):
        read_ids(open_run(tmp_path))


def test_ids_of_another_number_than_rows_are_refused(tmp_path: Path) -> None:
    run = write_yesterday(tmp_path)
    write_ids(tmp_path, YESTERDAY.user_ids[1:], YESTERDAY.item_ids)
    with pytest.raises(RunError, match=r"users.parquet: 3 ids for 4 rows"):
        read_ids(run)


def test_a_random_split_is_doubted(tmp_path: Path) -> None:
    write_yesterday(tmp_path)
    drawn = replace(today(), settings={"split": "random"})
    found = open_continued(tmp_path, "bprmf", "scratch", DIM, drawn)
    assert found.doubt is not None
    assert "--split temporal or ordered" in found.doubt


def test_a_job_that_continues_has_fewer_epochs_and_says_so() -> None:
    job = build_job("ce", {"dim": 4, "continue_from": "yesterday"})
    assert {name: getattr(job.options, name) for name in CONTINUED_DEFAULTS} == dict(CONTINUED_DEFAULTS)
    assert "--continue-from yesterday" in command_line(job, Path("d"), Path("o"), Path("t"))
    assert "--epochs" not in command_line(job, Path("d"), Path("o"), Path("t"))
    assert build_job("ce", {"continue_from": "yesterday", "epochs": 7}).options.epochs == 7
    with pytest.raises(SettingError, match="start: 'svd' and continue_from both say"):
        build_job("ce", {"start": "svd", "continue_from": "yesterday"})


def test_an_ials_run_goes_on_by_its_own_patience() -> None:
    job = build_job("scratch", {"continue_from": "yesterday"}, backbone="ials")
    assert (job.options.patience, job.options.eval_every) == (5, 1)


def test_of_large_data_yesterdays_run_is_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distill.training.job.is_whole", lambda *_: False)
    anew = large_defaults("ce", YESTERDAY, has_teacher=True)
    going_on = large_defaults("ce", YESTERDAY, has_teacher=True, is_continued=True)
    assert "start" not in going_on
    assert going_on["epochs"] < anew["epochs"]


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> tuple[Interactions, Interactions, Path]:
    """A checkerboard without its last rows and columns, a run of it, and the whole one in another order."""
    whole = build_checkerboard(28)
    order, columns = np.random.default_rng(0).permutation(28), np.random.default_rng(1).permutation(28)
    now = replace(
        whole, name="now", user_ids=whole.user_ids[order], item_ids=whole.item_ids[columns],
        **{name: getattr(whole, name)[order][:, columns].tocsr() for name in ("train", "validation", "test")},
    )  # fmt: skip
    before = replace(
        whole, name="before", user_ids=whole.user_ids[:24], item_ids=whole.item_ids[:24],
        **{name: getattr(whole, name)[:24, :24].tocsr() for name in ("train", "validation", "test")},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("days") / "before"
    run_job(build_job("scratch", {"dim": 4, "epochs": 60, "batch_size": 16, "learning_rate": 0.02}), before, path)
    return before, now, path


def continued_job(path: Path, epochs: int = 5) -> Job:
    return build_job("scratch", {"dim": 4, "continue_from": str(path), "epochs": epochs, "batch_size": 16})


def test_a_continued_run_starts_where_yesterdays_ended(
    days: tuple[Interactions, Interactions, Path], tmp_path: Path
) -> None:
    before, now, path = days
    metrics = run_job(continued_job(path), now, tmp_path / "now")
    assert metrics["continued"]["users_kept"] == 24
    assert metrics["continued"]["items_new"] == 4
    assert metrics["drift"]["overlap"] > 0.7
    assert metrics["drift"]["users_new"] == pytest.approx(4 / 28)
    random = run_job(build_job("scratch", {"dim": 4, "epochs": 5, "batch_size": 16}), now, tmp_path / "random")
    assert metrics["validation"]["NDCG@10"] > random["validation"]["NDCG@10"]
    user_ids, _ = read_ids(open_run(tmp_path / "now"))
    np.testing.assert_array_equal(user_ids, now.user_ids)
    assert before.num_users == 24


def test_a_continued_run_is_the_same_twice_and_knows_its_settings(
    days: tuple[Interactions, Interactions, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, now, path = days
    job = continued_job(path)
    for name in ("one", "two"):
        run_job(job, now, tmp_path / name)
    one, two = open_run(tmp_path / "one"), open_run(tmp_path / "two")
    np.testing.assert_array_equal(one.item_embeddings, two.item_embeddings)
    assert one.config["continue_from"] == str(path)
    assert one.config == describe(job, now, None)
    assert "continue_from" not in describe(build_job("scratch", {"dim": 4}), now, None)


def test_without_the_option_nothing_is_looked_up(
    days: tuple[Interactions, Interactions, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _, path = days

    def fail(*_: object) -> Continued:
        raise AssertionError

    monkeypatch.setattr(distill.training.continuation, "place_new_rows", fail)
    monkeypatch.setattr("distill.training.job.open_continued", fail)
    job = build_job("scratch", {"dim": 4, "epochs": 60, "batch_size": 16, "learning_rate": 0.02})
    metrics = run_job(job, before, tmp_path / "again")
    assert not {"continued", "drift"} & set(metrics)
    np.testing.assert_array_equal(open_run(tmp_path / "again").user_embeddings, open_run(path).user_embeddings)
