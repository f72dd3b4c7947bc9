from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.data.interactions import (
    Interactions,
    build_user_items,
    describe,
    format_description,
    load_interactions,
    save_interactions,
)
from distill.errors import DataError


@pytest.fixture
def toy() -> Interactions:
    return Interactions(
        name="toy",
        user_ids=np.array(["ann", "bob"]),
        item_ids=np.array(["x", "y", "zé"]),
        train=build_user_items(np.array([0, 1]), np.array([2, 0]), (2, 3)),
        validation=build_user_items(np.array([0]), np.array([1]), (2, 3)),
        test=build_user_items(np.array([1]), np.array([2]), (2, 3)),
        item_titles=("Ex", "Why", "Zed"),
        item_categories=(("a", "b"), (), ("b",)),
        settings={"split": "ordered", "ratios": "8:1:1"},
    )


def test_build_user_items_counts_a_pair_once() -> None:
    matrix = build_user_items(np.array([1, 1, 0]), np.array([2, 2, 1]), (2, 3))
    assert matrix.toarray().tolist() == [[0, 1, 0], [0, 0, 1]]
    assert matrix.dtype == np.float32
    assert matrix.has_sorted_indices


def test_round_trip_keeps_everything(tmp_path: Path, toy: Interactions) -> None:
    save_interactions(toy, tmp_path / "toy")
    back = load_interactions(tmp_path / "toy")
    assert back.fingerprint == toy.fingerprint
    assert back.counts == {"users": 2, "items": 3, "train": 2, "validation": 1, "test": 1}
    assert back.user_ids.tolist() == ["ann", "bob"]
    assert back.item_ids.tolist() == ["x", "y", "zé"]
    assert (tuple(back.item_titles or ()), tuple(back.item_categories or ())) == (toy.item_titles, toy.item_categories)
    assert back.settings == toy.settings
    for name in ("train", "validation", "test"):
        assert (getattr(back, name) != getattr(toy, name)).nnz == 0


def test_round_trip_without_titles(tmp_path: Path, toy: Interactions) -> None:
    save_interactions(replace(toy, item_titles=None, item_categories=None), tmp_path / "toy")
    back = load_interactions(tmp_path / "toy")
    assert back.item_titles is None
    assert back.item_categories is None


def test_fingerprint_depends_on_ids_and_split(toy: Interactions) -> None:
    assert replace(toy, name="other", settings={}).fingerprint == toy.fingerprint
    assert replace(toy, user_ids=np.array(["ann", "bert"])).fingerprint != toy.fingerprint
    assert replace(toy, validation=toy.test, test=toy.validation).fingerprint != toy.fingerprint


def test_save_spares_a_directory_that_is_not_ours(tmp_path: Path, toy: Interactions) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(DataError, match="not a data directory"):
        save_interactions(toy, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_load_names_the_command_when_nothing_is_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no dataset\.json there; .*lowpass data prepare"):
        load_interactions(tmp_path)


@pytest.mark.parametrize("name", ["users.parquet", "items.parquet", "interactions.parquet"])
def test_load_refuses_a_missing_or_broken_part(tmp_path: Path, toy: Interactions, name: str) -> None:
    save_interactions(toy, tmp_path / "toy")
    part = tmp_path / "toy" / name
    part.write_bytes(part.read_bytes()[:20])
    with pytest.raises(DataError, match="unreadable data directory"):
        load_interactions(tmp_path / "toy")
    part.unlink()
    with pytest.raises(DataError, match="unreadable data directory"):
        load_interactions(tmp_path / "toy")


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"name": 1}', '{"name": "x", "settings": {}, "format": 2, "fingerprint": ""}']
)
def test_load_refuses_a_broken_description(tmp_path: Path, toy: Interactions, text: str) -> None:
    save_interactions(toy, tmp_path / "toy")
    (tmp_path / "toy" / "dataset.json").write_text(text)
    with pytest.raises(DataError, match="unreadable data directory"):
        load_interactions(tmp_path / "toy")


def test_load_refuses_rows_out_of_range(tmp_path: Path, toy: Interactions) -> None:
    save_interactions(toy, tmp_path / "toy")
    pairs = pa.table({"user_index": [0, 9], "item_index": [0, 0], "split": [0, 0]})
    pq.write_table(pairs, tmp_path / "toy" / "interactions.parquet")
    with pytest.raises(DataError, match="unreadable data directory"):
        load_interactions(tmp_path / "toy")


def test_load_refuses_changed_content(tmp_path: Path, toy: Interactions) -> None:
    save_interactions(toy, tmp_path / "toy")
    description = json.loads((tmp_path / "toy" / "dataset.json").read_text())
    pq.write_table(pa.table({"user_id": ["ann", "eve"]}), tmp_path / "toy" / "users.parquet")
    assert description["fingerprint"] == toy.fingerprint
    with pytest.raises(DataError, match="fingerprint does not match"):
        load_interactions(tmp_path / "toy")


def test_load_takes_rows_in_any_order_and_folders_of_parts(tmp_path: Path, toy: Interactions) -> None:
    save_interactions(toy, tmp_path / "toy")
    path = tmp_path / "toy" / "interactions.parquet"
    pairs = pq.read_table(path)
    pq.write_table(pa.concat_tables([pairs.take(list(range(pairs.num_rows))[::-1]), pairs.slice(0, 1)]), path)
    assert load_interactions(tmp_path / "toy").fingerprint == toy.fingerprint
    path.unlink()
    path.mkdir()
    for number in range(pairs.num_rows):
        pq.write_table(pairs.slice(number, 1), path / f"part-{number:05d}.parquet")
    assert load_interactions(tmp_path / "toy").fingerprint == toy.fingerprint


def test_matrices_can_be_written_to(tmp_path: Path, toy: Interactions) -> None:
    save_interactions(toy, tmp_path / "toy")
    train = load_interactions(tmp_path / "toy").train
    assert train.indices.flags.writeable
    assert (train.dtype, train.indices.dtype, train.has_sorted_indices) == (np.float32, np.int32, True)


def test_stored_titles_are_a_sequence(tmp_path: Path, toy: Interactions) -> None:
    save_interactions(toy, tmp_path / "toy")
    titles = load_interactions(tmp_path / "toy").item_titles
    assert titles is not None
    assert (len(titles), titles[1], titles[-1]) == (3, "Why", "Zed")
    assert list(titles[1:]) == ["Why", "Zed"]
    with pytest.raises(IndexError):
        titles[3]


TOY = Interactions(
    name="toy",
    user_ids=np.array(["ann", "bob"]),
    item_ids=np.array(["x", "y", "z"]),
    train=build_user_items(np.array([0, 1, 1]), np.array([2, 0, 2]), (2, 3)),
    validation=build_user_items(np.array([0]), np.array([1]), (2, 3)),
    test=build_user_items(np.array([1]), np.array([1]), (2, 3)),
    item_titles=("Ex", "Why", "Zed"),
    item_categories=((), (), ("last",)),
    settings={"split": "ordered"},
)


def test_popularity_counts_training_interactions_alone() -> None:
    assert TOY.item_popularity.tolist() == [1, 0, 2]


def test_describe_counts_by_hand() -> None:
    description = describe(TOY)
    assert json.loads(json.dumps(description)) == description
    assert description["density"] == 5 / 6
    assert description["interactions_per_user"]["min"] == 2
    assert description["interactions_per_user"]["max"] == 3
    assert description["interactions_per_item"]["mean"] == 5 / 3
    assert description["popular_items"][0] == {
        "item_id": "z",
        "train": 2,
        "title": "Zed",
        "categories": ["last"],
    }


def test_format_description_is_for_people() -> None:
    text = format_description(describe(TOY))
    assert "toy: 2 users, 3 items, 3 train, 1 validation, 1 test" in text
    assert "z  Zed  (last)" in text
    assert TOY.fingerprint in text
