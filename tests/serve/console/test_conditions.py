from __future__ import annotations

from typing import Any

import pytest

from serve.console.conditions import LEAST_COMPARED, conditions
from serve.console.history import Moment, Series
from serve.rpc.pb.lowpass.v1 import admin_pb2 as pb


def quiet(**changed: Any) -> Moment:
    facts: dict[str, Any] = {"at": 0.0, "rate": 100.0, "failed": 0.0, "refused": 0.0, "p50": 0.001, "p99": 0.01}
    return Moment(**{**facts, "in_flight": 0.0, "memory": 1e8, "cpu": 0.1, **changed})


def said(
    versions: list[pb.ModelVersion] | None = None,
    series: Series | None = None,
    moments: list[Moment] | None = None,
    jobs: list[dict[str, Any]] | None = None,
    *,
    is_serving: bool = True,
) -> list[tuple[str, str]]:
    found = conditions(versions or [], series or {}, moments or [quiet()], jobs or [], is_serving=is_serving)
    assert all(each.look for each in found)
    return [(each.severity, each.says) for each in found]


def test_nothing_is_said_where_all_is_well() -> None:
    loaded = pb.ModelVersion(model="student", version="1", labels=["stable"], loaded=True)
    series: Series = {
        ("lowpass_worker_up", (("worker", "0"),)): 1.0,
        ("lowpass_index_breaker_open", (("index", "m"),)): 0.0,
    }
    assert said([loaded], series, [quiet()] * 20, [{"job": "nightly", "runs": [{"outcome": "published"}]}]) == []


@pytest.mark.parametrize(("labels", "severity"), [(["stable"], "bad"), (["canary"], "watch"), ([], "watch")])
def test_a_failed_load_weighs_by_what_names_it(labels: list[str], severity: str) -> None:
    failed = pb.ModelVersion(model="student", version="3", labels=labels, error="index.faiss: checksum differs")
    assert said([failed]) == [(severity, "student 3 could not be loaded: index.faiss: checksum differs")]


def test_what_the_series_tell() -> None:
    assert "draining" in said(is_serving=False)[0][1]
    assert "engine milvus://m" in said(series={("lowpass_index_breaker_open", (("index", "milvus://m"),)): 1.0})[0][1]
    assert said(series={("lowpass_worker_up", (("worker", "3"),)): 0.0}) == [("bad", "Worker 3 does not answer.")]
    assert said(series={("lowpass_log_lines_dropped_total", ()): 12.0})[0][1].startswith("12 lines")


def test_failures_and_refusals_of_the_last_minute() -> None:
    assert said(moments=[quiet(failed=2.0)] * 12)[0][1].startswith("2.0% of the requests")
    assert said(moments=[quiet(failed=0.5)] * 12) == []
    assert said(moments=[quiet(failed=50.0)] * 5 + [quiet()] * 12) == []
    assert said(moments=[quiet(refused=0.2)])[0][0] == "watch"
    assert said(moments=[quiet(refused=20.0)])[0][0] == "bad"


def test_a_shadow_is_judged_once_enough_lists_were_compared() -> None:
    def agreed(overlap: float, compared: float) -> Moment:
        told = {"overlap": overlap, "compared": compared}
        return quiet(shadows={"student:2 teacher:1": told})

    assert said(moments=[agreed(0.1, LEAST_COMPARED - 1)]) == []
    assert said(moments=[agreed(0.9, 100), agreed(0.1, 10)]) == []
    ((severity, text),) = said(moments=[agreed(0.1, 50), quiet()])
    assert severity == "watch"
    assert text.startswith("teacher:1 agrees with student:2 on 10%")


def test_the_latest_run_of_a_job_counts_and_the_worst_comes_first() -> None:
    jobs: list[dict[str, Any]] = [
        {"job": "weekly", "runs": [{"outcome": "held"}]},
        {"job": "nightly", "runs": [{"outcome": "failed"}, {"outcome": "published"}]},
        {"job": "hourly", "runs": [{"outcome": "published"}, {"outcome": "failed"}]},
        {"job": "never", "runs": []},
    ]
    found = said(jobs=jobs)
    assert [severity for severity, _ in found] == ["bad", "watch"]
    assert "nightly" in found[0][1]
    assert "weekly" in found[1][1]
