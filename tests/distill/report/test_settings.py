from __future__ import annotations

import json

from distill.report.material import gather
from distill.report.section import Table, Text
from distill.report.settings import build_settings_section, flatten
from tests.distill.report.conftest import Gallery


def test_nested_settings_keep_their_part_but_for_the_two_there_always_are() -> None:
    config = {
        "dim": 4, "start": "svd", "seed": 0, "training": {"epochs": 9}, "method_settings": {"ce": {"temperature": 2.0}},
        "data": {"name": "toy"},
    }  # fmt: skip
    assert flatten(config) == {
        "dim": "4", "start": "svd", "seed": "0", "epochs": "9", "ce.temperature": "2.0", "data.name": "toy",
    }  # fmt: skip


def test_only_what_differs_is_compared_and_everything_can_be_read(gallery: Gallery) -> None:
    runs, apart, *everything = build_settings_section(gather(gallery.students)).parts
    assert isinstance(runs, Table)
    assert [row[1] for row in runs.rows] == ["0", "0, 1", "0"]
    assert isinstance(apart, Table)
    assert [list(row) for row in apart.rows] == [
        ["method", "scratch", "freqd", "scratch"], ["dim", "16", "12", "4"], ["variant", "–", "bipartite", "–"],
        ["alpha", "–", "0.2", "–"],
    ]  # fmt: skip
    assert [part.title for part in everything if isinstance(part, Text)] == [
        str(gallery.teacher.path), *map(str, gallery.students),
    ]  # fmt: skip
    first = everything[0]
    assert isinstance(first, Text)
    assert json.loads(first.text) == gallery.teacher.config


def test_one_setting_has_nothing_that_sets_it_apart(gallery: Gallery) -> None:
    parts = build_settings_section(gather([gallery.scratch.path])).parts
    assert [type(part) for part in parts] == [Table, Text]
