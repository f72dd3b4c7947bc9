"""A teacher, its student and its PQ, with figures that are easy to divide."""

from __future__ import annotations

from dataclasses import replace

from serve.bench.comparison import Measured, Measurement, Role


def measured(value: float) -> Measured:
    return Measured(value, value, value)


def level(latency_ms: float, throughput: float, cpu_us: float, search_us: float) -> dict[str, Measured]:
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
