from __future__ import annotations

import json

import numpy as np

from distill.data.interactions import Interactions, build_user_items, describe, format_description

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
