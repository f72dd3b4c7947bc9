from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.data.item_metadata import ItemMetadata, read_item_metadata, read_metadata_beside
from distill.errors import DataError


def test_csv_keeps_categories_of_several_words(tmp_path: Path) -> None:
    path = tmp_path / "movies.csv"
    path.write_text('movieId,title,genres\n1,"Three, Two",Science Fiction|War|War\n2,Solo,(no genres listed)\n')
    metadata = read_item_metadata(path)
    assert metadata.titles == {"1": "Three, Two", "2": "Solo"}
    assert metadata.categories == {"1": ("Science Fiction", "War"), "2": ()}


def test_parquet_takes_lists(tmp_path: Path) -> None:
    columns = {"item_id": [1, 2], "title": ["One", None], "categories": [["a", "b"], None]}
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    metadata = read_item_metadata(tmp_path / "items.parquet")
    assert metadata == ItemMetadata({"1": "One"}, {"1": ("a", "b"), "2": ()})


def test_nothing_beside_is_no_titles(tmp_path: Path) -> None:
    assert read_metadata_beside(tmp_path / "u.item") == ItemMetadata()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("u.item", "1|A|\n", r"u\.item: line 1: 3 fields, expected 24; give"),
        ("movies.dat", "1::A::x\n2::B\n", r"movies\.dat: line 2: 2 fields, expected 3; give"),
        ("items.tsv", "id\ttitle\n1\tA\n", r"items\.tsv: no item column; name it 'item_id'"),
        ("items.xlsx", "", r"items\.xlsx: unknown kind of item file; give \.item"),
    ],
)
def test_malformed_item_files(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read_item_metadata(tmp_path / name)


def test_several_titles_of_an_item_are_told_and_words_for_missing_are_none(tmp_path: Path) -> None:
    path = tmp_path / "items.csv"
    rows = ["1,One,NaN", "2,Two,1990", "1,One,", "2,Deux,1990", "3,NaN,", "3,,", "2,Zwei,", "4, ,1", "1,Un,"]
    path.write_text("\n".join(["item_id,title,year", *rows]))
    assert read_item_metadata(path) == ItemMetadata(
        {"1": "Un", "2": "Zwei"},
        {},
        (f"{path}: line 5: item '2' has another title than before: 2 items have several, and the last counts",),
    )
    pq.write_table(pa.table({"item_id": [1, 2], "title": [float("nan"), 7.0]}), tmp_path / "items.parquet")
    assert read_item_metadata(tmp_path / "items.parquet").titles == {"2": "7.0"}
