"""Titles and categories of items, from the files that public sets put beside their interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from distill.data.delimited import read_delimited
from distill.data.ids import MISSING_WORDS, plain_ids
from distill.data.parquet import read_parquet
from distill.data.tabular import Tabular
from distill.data.text import plain_name, read_text
from distill.errors import DataError

ITEM_COLUMNS = ("item_id", "itemId", "movieId", "item")
TITLE_COLUMNS = ("title", "movie_title", "item_name", "name")
YEAR_COLUMNS = ("release_year", "year")
CATEGORY_COLUMNS = ("categories", "category", "class", "genres", "genre")

ML_100K_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *(
        "Fantasy",
        "Film-Noir",
        "Horror",
        "Musical",
        "Mystery",
        "Romance",
        "Sci-Fi",
        "Thriller",
        "War",
        "Western",
    ),
)
"""The flag columns of `u.item`, in the order of the set's own `u.genre`."""


@dataclass(frozen=True)
class ItemMetadata:
    """What people call the items.

    Attributes:
        titles: item_id → title.
        categories: item_id → names, in the order of the file.
        notes: What is strange about them.
    """

    titles: Mapping[str, str] = field(default_factory=dict)
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_item_metadata(path: Path, *, ids_as_written: bool = False) -> ItemMetadata:
    """Read titles and categories; the format follows from the file's name.

    RecBole `.item`, MovieLens `u.item` and `movies.dat`, or CSV, TSV or Parquet with an `item_id` column and
    `title` and `categories` columns; several categories are parted by "|" (in `.item` also by spaces).

    Args:
        path: The file; text may be compressed.
        ids_as_written: Keep spaces around ids and '.0', as where the interactions are read so.

    Raises:
        DataError: The file is missing or malformed.
    """
    name = plain_name(path)
    kind = Path(name).suffix.lower()
    if name == "u.item":
        return _read_u_item(path)
    if name == "movies.dat":
        return _read_movies_dat(path)
    if kind == ".item":
        source = read_delimited(path, "\t", typed_header=True)
    elif kind == ".parquet":
        source = read_parquet(path)
    elif kind in {".csv", ".tsv"}:
        comma = kind == ".csv"
        source = read_delimited(path, "," if comma else "\t", quotes="always" if comma else "consistent")
    else:
        raise DataError(f"{path}: unknown kind of item file; give .item, .csv, .tsv, .parquet, u.item or movies.dat")
    return _from_columns(source, spaces_part_categories=kind == ".item", ids_as_written=ids_as_written)


def read_metadata_beside(path: Path, *, ids_as_written: bool = False) -> ItemMetadata:
    """Read `path` if it is there; no titles otherwise."""
    return read_item_metadata(path, ids_as_written=ids_as_written) if path.is_file() else ItemMetadata()


def _from_columns(source: Tabular, *, spaces_part_categories: bool, ids_as_written: bool) -> ItemMetadata:
    item = source.find(None, ITEM_COLUMNS)
    if item is None:
        raise DataError(f"{source.path}: no item column; name it '{ITEM_COLUMNS[0]}'")
    item_ids = plain_ids(source.strings(item), as_written=ids_as_written)
    title, year = source.find(None, TITLE_COLUMNS), source.find(None, YEAR_COLUMNS)
    category = source.find(None, CATEGORY_COLUMNS)
    titles, notes = _read_titles(source, item_ids, title, year) if title else ({}, ())
    categories: dict[str, tuple[str, ...]] = {}
    if category is not None:
        values = source.plain(category).to_pylist()
        categories = {
            item_id: _split_categories(value, spaces_part_categories)
            for item_id, value in zip(item_ids, values, strict=True)
        }
    return ItemMetadata(titles, categories, notes)


def _read_titles(
    source: Tabular, item_ids: Sequence[str], title: str, year: str | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Read titles, with the year where there is one; of several of an item the last counts, which is noted."""
    texts = source.plain(title).to_pylist()
    years = source.plain(year).to_pylist() if year else [None] * len(texts)
    titles: dict[str, str] = {}
    renamed: dict[str, int] = {}
    for row, (item_id, text, when) in enumerate(zip(item_ids, texts, years, strict=True)):
        if _is_missing(text):
            continue
        full = str(text) if _is_missing(when) else f"{text} ({when})"
        if titles.setdefault(item_id, full) != full:
            renamed.setdefault(item_id, row)
        titles[item_id] = full
    if not renamed:
        return titles, ()
    item_id, row = next(iter(renamed.items()))
    return titles, (
        f"{source.where(row)}: item '{item_id}' has another title than before: {len(renamed):,} items have several, "
        "and the last counts",
    )


def _is_missing(value: object) -> bool:
    return value is None or str(value).strip() in {"", *MISSING_WORDS}


def _split_categories(value: str | list[str] | None, spaces_part: bool) -> tuple[str, ...]:
    if not isinstance(value, str):
        return tuple(value or ())
    if spaces_part:
        value = value.replace(" ", "|")
    names = (name.strip() for name in value.split("|"))
    return tuple(dict.fromkeys(name for name in names if name and name != "(no genres listed)"))


def _read_u_item(path: Path) -> ItemMetadata:
    titles, categories = {}, {}
    first_flag = 5
    expected = first_flag + len(ML_100K_GENRES)
    for number, line in enumerate(read_text(path, "latin-1").removesuffix("\n").split("\n"), start=1):
        fields = line.split("|")
        if len(fields) != expected:
            raise DataError(
                f"{path}: line {number}: {len(fields)} fields, expected {expected}; give the set's own u.item"
            )
        titles[fields[0]] = fields[1]
        flags = zip(ML_100K_GENRES, fields[first_flag:], strict=True)
        categories[fields[0]] = tuple(genre for genre, flag in flags if flag == "1")
    return ItemMetadata(titles, categories)


def _read_movies_dat(path: Path) -> ItemMetadata:
    titles, categories = {}, {}
    for number, line in enumerate(read_text(path, "latin-1").removesuffix("\n").split("\n"), start=1):
        fields = line.split("::")
        if len(fields) != 3:
            raise DataError(f"{path}: line {number}: {len(fields)} fields, expected 3; give the set's own movies.dat")
        titles[fields[0]] = fields[1]
        categories[fields[0]] = _split_categories(fields[2], spaces_part=False)
    return ItemMetadata(titles, categories)
