from __future__ import annotations

from pathlib import Path

from export.frontier.choice import Limits, Recommendation, Row, explain, milliseconds, next_commands, recommend
from tests.export.frontier.toy import USERS, build_baseline, build_row, build_teacher, build_untrained

ROWS = [
    build_teacher(p99_us=400.0),
    build_untrained("svd-d16", 0.80, 16, p99_us=300.0),
    build_row("big", 0.99, 64, 200.0),
    build_row("small", 0.97, 32, 100.0),
    build_baseline("ease", 1.10, 4000),
]


def within_three_points(first: Row, second: Row) -> bool:
    return abs(first.kept - second.kept) < 0.031


def never(first: Row, second: Row) -> bool:
    return False


def say(limits: Limits, rows: list[Row] = ROWS) -> tuple[Recommendation, list[str]]:
    found = recommend(rows, limits, within_three_points)
    return found, explain(found, rows, limits)


def test_the_choice_is_explained_by_its_numbers() -> None:
    _, sentences = say(Limits(max_bytes_per_item=300, max_p99_ms=2))
    assert sentences == [
        "Take `small`: 32 bytes an item, 64 a user, 97.0 % of the teacher's validation Recall@20 (95 % interval 96.0 % "
        "to 98.0 %), p50 0.05 ms, p99 0.1 ms a query. The teacher as it is takes 256 bytes an item and 64 a user; its "
        "quickest index, with 256 bytes an item, p50 0.2 ms.",
        "3 of 5 candidates are within the limits (at least 95.0 % of the teacher's validation Recall@20, at most 300 "
        "bytes an item, p99 at most 2 ms). `teacher-float32` has the highest validation Recall@20 of them (100.0 % at "
        f"256 bytes an item), but {USERS} users cannot tell it from 2 others, and this one is the smallest of those.",
        "On test, which chose nothing, it keeps 95.0 %.",
        "The best that needs no distillation in as few bytes is `svd-d16` with 80.0 % at 16 bytes an item.",
        "Runner-up: `big`, 99.0 % at 64 bytes an item, p99 0.2 ms.",
        "Next cheaper: `svd-d16`, 16 bytes an item, 80.0 %: 17.0 points of the teacher's Recall@20 less.",
        "`ease` reads higher (110.0 %), at 4,000 bytes an item and p50 0.05 ms, but it has no embeddings, so no bundle "
        "can hold it.",
    ]


def test_a_choice_without_a_tie_says_so() -> None:
    found = recommend(ROWS, Limits(max_bytes_per_item=64), never)
    assert explain(found, ROWS, Limits(max_bytes_per_item=64))[1].endswith(
        "it has the highest validation Recall@20 of them, by more than chance allows."
    )
    assert say(Limits(min_kept=0.95, max_bytes_per_item=32))[1][1].startswith("It is the only one of 5 candidates")
    best = [build_row("best", 0.99, 16), build_row("alike", 0.98, 16)]
    _, sentences = say(Limits(), [build_teacher(), *best][1:])
    assert f"{USERS} users cannot tell it from 1 other, but none of those takes fewer" in sentences[1]


def test_the_teacher_itself_may_be_the_answer() -> None:
    found = recommend(ROWS, Limits(min_kept=1.0), never)
    sentences = explain(found, ROWS, Limits(min_kept=1.0))
    assert sentences[0].endswith("That is the teacher as it is: nothing smaller is as good within the limits.")
    assert "It needs no training: no student here that is as good is smaller." in sentences


def test_where_nothing_fits_the_limit_to_relax_is_an_option_to_give() -> None:
    found, sentences = say(Limits(max_bytes_per_item=20))
    assert sentences == [
        "Nothing is within the limits: at least 95.0 % of the teacher's validation Recall@20, at most 20 bytes an "
        "item.",
        "`--min-kept 0.8` would admit `svd-d16`: 80.0 % at 16 bytes an item, p99 0.3 ms.",
        "`--max-bytes-per-item 32` would admit `small`: 97.0 % at 32 bytes an item, p99 0.1 ms.",
    ]
    assert next_commands(found, Path("out")) == []


def test_the_next_commands_can_be_pasted() -> None:
    found, _ = say(Limits())
    assert next_commands(found, Path("my runs/frontier")) == [
        "lowpass export 'my runs/frontier' --repository models --model student --seen all",
        "lowpass serve --repository models",
    ]


def test_times_keep_two_digits() -> None:
    assert [milliseconds(value) for value in (4.26, 43.9, 1234.0, 56_789.0)] == [
        "0.0043 ms",
        "0.044 ms",
        "1.2 ms",
        "57 ms",
    ]
