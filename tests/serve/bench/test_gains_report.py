from __future__ import annotations

from dataclasses import replace

import pytest

from serve.bench.contestants import Role
from serve.bench.gains_report import findings, render
from serve.bench.measurement import Measurement, gains_over
from serve.bench.rounds import LoadOptions, Measured


def measured(value: float) -> Measured:
    return Measured(value, value, value)


def level(latency_ms: float, throughput: float, cpu_us: float, search_us: float) -> dict[str, Measured | None]:
    return {
        "p50_ms": measured(latency_ms),
        "p95_ms": measured(2 * latency_ms),
        "p99_ms": measured(3 * latency_ms),
        "throughput": measured(throughput),
        "server_cpu_us": measured(cpu_us),
        "load_busy": measured(0.5),
        "search_us": measured(search_us),
    }


TEACHER = Measurement(
    role=Role.TEACHER,
    name="big",
    dim=400,
    parameters=4_000_000,
    item_bytes=1600,
    index_bytes=1600,
    codebook_bytes=0,
    user_bytes=1600,
    bundle_bytes=20 * 2**20,
    index="Flat",
    ann_recall=1.0,
    answer_table=0,
    quality={"recall@20": 0.05, "ndcg@20": 0.02, "convention": "toy"},
    memory={"rss": 200 * 2**20, "anonymous": 50 * 2**20},
    levels={"1": level(2.0, 500, 1800, 1500), "32": level(40.0, 600, 1500, 1500)},
    errors={},
)
STUDENT = replace(
    TEACHER,
    role=Role.STUDENT,
    name="small",
    dim=20,
    parameters=200_000,
    item_bytes=80,
    index_bytes=200,
    user_bytes=80,
    bundle_bytes=2 * 2**20,
    quality={"recall@20": 0.04, "ndcg@20": 0.016, "kept_recall": 0.8, "convention": "toy"},
    memory={"rss": 100 * 2**20, "anonymous": 50 * 2**20},
    levels={"1": level(0.5, 1900, 300, 100), "32": level(10.0, 3000, 300, 100)},
)
PQ = replace(STUDENT, role=Role.PQ, name="coded", user_bytes=1600, quality={**TEACHER.quality, "kept_recall": 1.0})


def test_gains_are_above_one_where_the_other_is_better() -> None:
    gain = {name: found.ratio for name, found in gains_over(TEACHER, STUDENT).items()}
    assert gain["item_bytes"] == 20
    assert gain["memory"] == 2
    assert gain["p50_at_1"] == gain["p99_at_32"] == 4
    assert gain["throughput_at_32"] == gain["throughput_per_core"] == 5
    assert gain["search"] == 15
    assert gain["recall"] == pytest.approx(0.8)


def test_what_was_not_measured_has_no_ratio() -> None:
    without = replace(STUDENT, memory={}, levels={"1": STUDENT.levels["1"], "32": {**STUDENT.levels["32"]}})
    no_cpu = replace(without, levels={**without.levels, "32": {**without.levels["32"], "server_cpu_us": None}})
    assert {"memory", "throughput_per_core"}.isdisjoint(gains_over(TEACHER, no_cpu))


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


def test_what_the_rounds_cannot_tell_apart_is_level() -> None:
    wide = replace(STUDENT, levels={**STUDENT.levels, "1": {**STUDENT.levels["1"], "p50_ms": Measured(1.0, 0.4, 2.5)}})
    gain = gains_over(TEACHER, wide)["p50_at_1"]
    assert gain.level
    assert gain.ratio == 2
    assert not gains_over(TEACHER, STUDENT)["p50_at_1"].level


def test_different_conventions_and_unknown_quality_give_no_share() -> None:
    odd = replace(STUDENT, quality={"recall@20": 0.04, "convention": "other"})
    assert "recall" not in gains_over(TEACHER, odd)
    assert "ndcg" not in gains_over(TEACHER, replace(STUDENT, quality={"convention": "toy"}))
    assert "(quality unknown)" in findings([TEACHER, odd])[0]


def test_the_table_has_a_column_a_model_and_leaves_out_empty_rows() -> None:
    lines = render([TEACHER, STUDENT], LoadOptions(), ["a note"]).splitlines()
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
