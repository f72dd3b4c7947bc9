from __future__ import annotations

from dataclasses import replace

import numpy as np

from serve.bench.comparison import LoadOptions, Measurement, Role
from serve.bench.report import (
    describe,
    findings,
    glance,
    headline,
    hgrm,
    hgrm_shares,
    render,
    rivals_line,
    summarize,
    tabulate_windows,
)
from tests.serve.bench.toy_measurements import PQ, STUDENT, TEACHER, level
from tests.serve.bench.toy_windows import window

SVD = replace(STUDENT, role=Role.SVD, name="cut", quality={"recall@20": 0.03, "convention": "toy"})


def squeeze(text: str) -> list[str]:
    """Lines without the blanks that align their cells."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_percentile_file_is_hdrhistograms() -> None:
    latencies = np.arange(1, 1001) / 10
    text = hgrm(window(latencies.tolist())).decode().splitlines()
    assert text[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [line.split() for line in text[2:-2]]
    values, shares, counts = (np.array([float(row[column]) for row in rows]) for column in (0, 1, 2))
    assert (np.diff(values) >= 0).all()
    assert (np.diff(shares) > 0).all()
    assert (values[-1], shares[-1], counts[-1]) == (100.0, 1.0, 1000)
    np.testing.assert_allclose(values, np.maximum(np.ceil(shares * 1000), 1) / 10, atol=0.0501)
    assert "Total count    =         1000" in text[-1]
    assert hgrm_shares(1) == [0.0, 1.0]


def test_numbers_name_what_failed_and_what_kept_the_limit() -> None:
    numbers = describe(window([1.0, 20.0], 2.0, errors={"UNAVAILABLE": 3}, intended=4.0), slo_ms=10.0)
    assert (numbers["answers_per_second"], numbers["goodput_per_second"], numbers["errors"]) == (
        1.0,
        0.5,
        {"UNAVAILABLE": 3},
    )
    assert describe(window([]))["p99_ms"] is None
    seen = window([1.0, 3.0, 2.0], 1.5, load_busy=0.5)
    found = describe(seen)
    assert (found["answered"], found["p50_ms"], found["p99_ms"], found["mean_ms"]) == (3, 2.0, 3.0, 2.0)
    assert (found["load_busy"], found["stages_p50_us"]["search"]) == (0.5, 0.0)


def test_windows_stand_side_by_side_with_what_failed_below() -> None:
    lines = squeeze(tabulate_windows({"a": describe(window([1.0] * 1500)), "b": describe(window([], errors={"X": 2}))}))
    assert lines[0] == "| | a | b |"
    assert "| answered | 1,500 | 0 |" in lines
    assert "| p99 ms | 1.0 | – |" in lines
    assert "| server total p50 µs | 0 | – |" in lines
    assert not any("intended" in line for line in lines), "a closed loop intends no rate"
    assert lines[-1] == "b: failed 2 × X"


def test_sentences_follow_the_numbers() -> None:
    first, second = findings([TEACHER, STUDENT, PQ])
    assert first == (
        "The student keeps 80.0 % of the teacher's Recall@20 at 20.0 times fewer bytes an item: index size 8.00 times "
        "better, bundle size 10.00 times better, memory 2.00 times better, p50 alone 4.00 times better, p99 at 32 4.00 "
        "times better, throughput per core 5.00 times better, search time 15.00 times better."
    )
    assert second == (
        "Student against PQ of the teacher at 80 bytes an item: Recall@20 1.25 times worse, p50 alone level, throughput"
        " per core level, bytes a user 20.00 times better, index size level, bundle size level."
    )


def test_unknown_quality_is_said() -> None:
    odd = replace(STUDENT, quality={"recall@20": 0.04, "convention": "other"})
    assert "(quality unknown)" in findings([TEACHER, odd])[0]


def test_the_table_has_a_column_a_model_and_leaves_out_empty_rows() -> None:
    title, _, *lines = squeeze(render([TEACHER, STUDENT], LoadOptions(), ["a note"]))
    assert title == f"# {headline([TEACHER, STUDENT])}"
    assert lines[0] == "| | teacher<br>`big`, Flat | student<br>`small`, Flat |"
    assert "| bytes an item, in the index | 1,600 | 80 |" in lines
    assert "| answers/s that a server core can give | 667 | 3,333 |" in lines
    assert "| kept of the teacher's Recall@20 | – | 80.0 % |" in lines
    assert not any("codebook" in line for line in lines)
    assert "- a note" in lines


def test_failed_requests_and_different_conventions_are_said() -> None:
    odd = replace(STUDENT, errors={"UNAVAILABLE": 3}, quality={**STUDENT.quality, "convention": "other"})
    text = render([TEACHER, odd], LoadOptions(), [])
    assert "Requests to small failed: 3 × UNAVAILABLE" in text
    assert "does not compare: other; toy" in text
    assert "Requests to small failed: 3 × UNAVAILABLE" in summarize([TEACHER, odd])


def test_the_finding_is_computed_from_the_numbers() -> None:
    def say(**other: object) -> str:
        return headline([TEACHER, replace(STUDENT, **other)])  # type: ignore[arg-type]

    assert say() == "The student keeps 80 % of the quality at 1/20 of the bytes, 5 × the answers a core"
    assert say(item_bytes=390).startswith("The student keeps 80 % of the quality at 1/4.1 of the bytes, ")
    assert say(item_bytes=4000).startswith("The student keeps 80 % of the quality at 2.5 × the bytes, ")
    assert say(item_bytes=1600).startswith("The student keeps 80 % of the quality at the same bytes, ")
    assert say(levels=TEACHER.levels).endswith("of the bytes, as many answers a core")
    slower = {**STUDENT.levels, "32": level(40.0, 300, 3000, 3000)}
    assert say(levels=slower).endswith("of the bytes, 0.5 × the answers a core")
    assert say(quality={}) == "The student takes 1/20 of the bytes, 5 × the answers a core"


def test_at_a_glance_each_model_is_set_against_the_teacher() -> None:
    def cells(measurements: list[Measurement]) -> dict[str, list[str]]:
        return {row.title: [f"{cell.text} {cell.note}".strip() for cell in row.cells] for row in glance(measurements)}

    found = cells([TEACHER, STUDENT, SVD, PQ])
    assert found == {
        "quality kept": ["100 % recall 0.0500", "80 % recall 0.0400", "60 % recall 0.0300", "100 % recall 0.0500"],
        "bytes an item": ["1,600", *["80 20 × fewer"] * 3],
        "search time": ["1,500 µs", *["100 µs 15 × faster"] * 3],
        "answers/s a core": ["667", *["3,333 5 × more"] * 3],
        "server memory": ["200 MiB", *["100 MiB 2 × less"] * 3],
    }
    worse = cells([STUDENT, replace(TEACHER, quality={}, memory={"rss": 101 * 2**20})])
    assert [row[1] for row in worse.values()] == [
        "?", "1,600 20 × more", "1,500 µs 15 × slower", "667 5 × fewer", "101 MiB the same",
    ]  # fmt: skip
    assert [row.more_is_better for row in glance([TEACHER, STUDENT])] == [True, False, False, True, False]


def test_the_summary_ends_with_what_rivals_keep_and_the_finding() -> None:
    lines = summarize([TEACHER, STUDENT, SVD, PQ]).splitlines()
    assert lines[0].split("  ")[-1] == "PQ of the teacher"
    assert (
        lines[-2]
        == rivals_line([TEACHER, STUDENT, SVD, PQ])
        == (
            "The teacher made small without training: SVD keeps 60 % at 80 bytes an item, PQ keeps 100 % at 80 bytes an"
            " item."
        )
    )
    assert lines[-1] == f"{headline([TEACHER, STUDENT])}."
    assert rivals_line([TEACHER, STUDENT]) == ""
