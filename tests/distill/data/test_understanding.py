from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from distill.data.interactions import describe, format_description
from distill.data.prepare import PrepareOptions, prepare_source
from distill.data.understanding import NO_VALIDATION
from distill.errors import DataError

LOG = "user_id,item_id,timestamp\n" + "".join(
    f"u{row % 3},{row},{1700000000 + row}{'000' if row % 2 else ''}\n" for row in range(12)
)


def understand(
    source: Path, items: Path | None = None, format_name: str | None = None, **options: Any
) -> dict[str, Any]:
    data = prepare_source(source, PrepareOptions(**options), name="toy", items=items, format_name=format_name)
    understood: dict[str, Any] = data.settings["understood"]
    assert f"split        {understood['split']}" in format_description(describe(data))
    return understood


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(LOG)
    return path


def write_times(path: Path, times: Iterable[object]) -> None:
    rows = (f"u{row % 3},{row},{when}\n" for row, when in enumerate(times))
    path.write_text("user_id,item_id,timestamp\n" + "".join(rows))


@pytest.mark.parametrize("split", ["auto", "temporal", "leave-one-out"])
def test_times_of_two_units_are_refused_where_the_split_goes_by_them(log: Path, split: str) -> None:
    message = (
        r"log\.csv: line 3: column 'timestamp' is 1700000001000, in milliseconds, where times before it are in seconds"
    )
    with pytest.raises(DataError, match=message + "; write all times in one unit, or give --split random"):
        understand(log, split=split)


def test_times_of_two_units_are_told_where_the_split_does_not_read_them(log: Path) -> None:
    (warning,) = understand(log, split="random", ratios=(1, 1, 1))["warnings"]
    assert "line 3: column 'timestamp' is 1700000001000, in milliseconds" in warning


def test_times_that_are_nearly_all_equal_are_told(log: Path) -> None:
    write_times(log, [1500000000] * 12)
    understood = understand(log, ratios=(1, 1, 1))
    assert understood["times"]["tied"] == 1
    assert understood["warnings"] == [
        "100% of the times equal another of the same user; these rows keep the order of the file"
    ]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("user_id,item_id", "no times"),
        ("user_id,item_id,when", "no times; if when is one, name it by --timestamp-column"),
        ("user_id,item_id,Timestamp", "the source has times"),
    ],
)
def test_the_split_has_a_reason(log: Path, header: str, reason: str) -> None:
    width = header.count(",") + 1
    rows = (",".join([f"u{row % 3}", str(row), str(row)][:width]) for row in range(12))
    log.write_text("\n".join([header, *rows]))
    understood = understand(log)
    assert understood["split_because"] == reason
    assert understood["split"] == ("temporal" if header.endswith("Timestamp") else "random")


def test_pairs_in_several_parts_of_a_ready_split_are_counted(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("user,item\na,x\na,y\nb,x\na,x\n")
    (tmp_path / "test.csv").write_text("user,item\na,x\na,z\nb,x\n")
    understood = understand(tmp_path)
    assert understood["rows"] == {"read": 7, "below_the_rating": 0, "repeated": 3, "outside_the_core": 0}
    assert understood["split_because"] == "the source is split, drawn from train at random for validation: 1 of 3"
    assert understood["warnings"] == [
        "2 pairs stand in several parts of the ready split; each was kept in the first of them"
    ]


def test_titles_that_match_nothing_are_told(log: Path) -> None:
    items = log.with_name("items.csv")
    items.write_text("item_id,title\ni1,One\n")
    understood = understand(log, items, split="ordered")
    assert understood["titles"] == {"items": 12, "found": 0}
    assert "no title matched: the interactions have items such as '0', the titles 'i1'" in understood["warnings"]
    items.write_text("item_id,title\n1.0,One\n2.0,Two\n")
    assert understand(log, items, split="ordered")["titles"] == {"items": 12, "found": 2}
    items.write_text("item_id,what\n1,One\n")
    with pytest.raises(DataError, match=r"items\.csv: no titles or categories in it; name the columns 'title' and"):
        understand(log, items, split="ordered")


def test_rows_that_a_filter_dropped_are_counted(log: Path) -> None:
    log.write_text("user_id,item_id,rating\na,x,5\na,x,5\na,y,1\nb,x,5\nb,z,5\n")
    rows = understand(log, rating_minimum=4, item_minimum=2)["rows"]
    assert rows == {"read": 5, "below_the_rating": 1, "repeated": 1, "outside_the_core": 1}


def test_lists_without_validation_say_what_was_drawn(tmp_path: Path) -> None:
    (tmp_path / "test.txt").write_text("".join(f"{user} 30\n" for user in range(10)))
    (tmp_path / "train.txt").write_text("".join(f"{user} {user} {user + 10}\n" for user in range(10)))
    understood = understand(tmp_path, format_name="lightgcn")
    assert understood["split_because"] == "the source is split, drawn from train at random for validation: 2 of 20"
    assert understood["warnings"] == []
    (tmp_path / "train.txt").write_text("".join(f"{user} {user}\n" for user in range(10)))
    understood = understand(tmp_path, format_name="lightgcn", split="ready")
    assert understood["split_because"] == "as asked, drawn from train at random for validation: 0 of 10"
    assert understood["warnings"] == [NO_VALIDATION]


@pytest.mark.parametrize(("scale", "first"), [(1, "0"), (1000, "0"), (10**6, "-1")])
@pytest.mark.parametrize("every", [2, 3, 7])
def test_times_of_zero_among_dates_are_told(log: Path, scale: int, first: str, every: int) -> None:
    rows = [first if row % every == 1 else str((1700000000 + row) * scale) for row in range(42)]
    log.write_text(
        "user_id,item_id,timestamp\n" + "".join(f"u{row % 3},{row},{when}\n" for row, when in enumerate(rows))
    )
    (warning,) = understand(log)["warnings"]
    assert f"log.csv: line 3: column 'timestamp' is {first}: {42 // every} times lie before 1970-01-02" in warning


@pytest.mark.parametrize("times", [range(42), range(0, 42 * 86400, 86400), [1700000000 + row for row in range(42)]])
def test_counters_and_dates_alone_are_not_told(log: Path, times: Iterable[int]) -> None:
    log.write_text(
        "user_id,item_id,timestamp\n" + "".join(f"u{row % 3},{row},{when}\n" for row, when in enumerate(times))
    )
    assert understand(log)["warnings"] == []


def test_several_titles_of_an_item_are_told(log: Path) -> None:
    items = log.with_name("items.csv")
    items.write_text("item_id,title\n1,One\n1,Uno\n")
    warning = understand(log, items, split="random")["warnings"][0]
    assert "items.csv: line 3: item '1' has another title than before: 1 items have several" in warning
