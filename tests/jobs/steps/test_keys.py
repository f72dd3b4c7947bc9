from __future__ import annotations

from pathlib import Path

from jobs.steps.keys import digest, hash_source


def test_a_key_is_of_names_and_values_in_any_order() -> None:
    assert digest("teacher", {"a": 1, "b": [2]}) == digest("teacher", {"b": [2], "a": 1})
    assert len({digest("teacher", {"a": 1}), digest("distill", {"a": 1}), digest("teacher", {"a": 2})}) == 3


def test_a_source_is_hashed_by_names_and_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "source"
    (folder / "part=1").mkdir(parents=True)
    (folder / "part=1" / "a.csv").write_text("1")
    (folder / "b.csv").write_text("2")
    first = hash_source(folder)
    (folder / ".hidden").write_text("x")
    (folder / "b.csv").touch()
    assert hash_source(folder) == first
    (folder / "b.csv").rename(folder / "c.csv")
    renamed = hash_source(folder)
    (folder / "c.csv").write_text("3")
    assert len({first, renamed, hash_source(folder), hash_source(folder / "c.csv")}) == 4
