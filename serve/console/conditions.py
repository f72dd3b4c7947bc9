"""What is wrong, as far as the server itself can see; alerts that a monitoring system raises are elsewhere.

Each condition says what it is in a sentence, and what to look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from serve.console.history import Moment, Series
from serve.rpc.pb.lowpass.v1 import admin_pb2 as pb

RECENT = 12
"""Moments that count as now: a minute."""
FAILED_SHARE = 0.01
"""Of the requests of that minute; above, failures are told."""
LEAST_OVERLAP, LEAST_COMPARED = 0.3, 20
"""Share of the live list that the shadow has too, below which it is told, and lists compared before it is judged."""

Severity = Literal["bad", "watch"]


@dataclass(frozen=True)
class Condition:
    """Something that somebody should know.

    Args:
        severity: "bad": callers notice it or soon will. "watch": they do not.
        says: What it is.
        look: Where to look, or what to do.
    """

    severity: Severity
    says: str
    look: str


def conditions(
    versions: Sequence[pb.ModelVersion],
    series: Series,
    moments: Sequence[Moment],
    jobs: Sequence[Mapping[str, Any]] = (),
    *,
    is_serving: bool,
) -> list[Condition]:
    """All that is wrong now, worst first.

    Args:
        versions: As the admin service lists them.
        series: As they are now.
        moments: The latest ones.
        jobs: As the page shows them.
        is_serving: What health says.
    """
    found = [
        *_standing(versions, is_serving=is_serving),
        *_series(series),
        *_traffic(moments[-RECENT:]),
        *_shadows(moments),
        *_jobs(jobs),
    ]
    return sorted(found, key=lambda each: each.severity != "bad")


def _standing(versions: Sequence[pb.ModelVersion], *, is_serving: bool) -> Iterator[Condition]:
    if not is_serving:
        yield Condition(
            "bad",
            "Health says NOT_SERVING: the server is draining before it stops, or has not loaded yet.",
            "Callers are sent elsewhere. Nothing to do if a restart is meant; else its log says why it stops.",
        )
    for each in versions:
        if each.error:
            yield Condition(
                "bad" if "stable" in each.labels else "watch",
                f"{each.model} {each.version} could not be loaded: {each.error}",
                "What was served before goes on. Export the version again, or move its label back (Models).",
            )


def _series(series: Series) -> Iterator[Condition]:
    for (name, labels), value in series.items():
        about = dict(labels)
        if name == "lowpass_index_breaker_open" and value:
            yield Condition(
                "bad",
                f"The engine {about['index']} is left alone because it keeps failing: its models do not answer.",
                "Is the engine up, and reached from here? It is tried again by itself.",
            )
        elif name == "lowpass_worker_up" and not value:
            yield Condition(
                "bad",
                f"Worker {about['worker']} does not answer.",
                "It is started again if it ended; the log has its end. The others go on.",
            )
        elif name == "lowpass_log_lines_dropped_total" and value:
            yield Condition(
                "watch",
                f"{value:.0f} lines of the log were dropped since the start.",
                "Whoever reads the server's stderr takes lines too slowly, or no longer.",
            )


def _traffic(moments: Sequence[Moment]) -> Iterator[Condition]:
    asked = sum(each.rate for each in moments)
    failed, refused = (sum(getattr(each, name) for each in moments) for name in ("failed", "refused"))
    if asked and failed / asked > FAILED_SHARE:
        yield Condition(
            "bad",
            f"{failed / asked:.1%} of the requests of the last minute failed on the server's side.",
            "The log names each defect; the p99 above tells whether deadlines were missed.",
        )
    if refused:
        yield Condition(
            "bad" if refused / asked > FAILED_SHARE else "watch",
            f"{refused / asked:.1%} of the requests of the last minute were refused: overload, or no valid key.",
            "lowpass_requests_rejected_total tells which. More servers or threads, or a caller in a loop?",
        )


def _shadows(moments: Sequence[Moment]) -> Iterator[Condition]:
    latest = next((each.shadows for each in reversed(moments) if each.shadows), {})
    for pair in latest:
        told = [each.shadows[pair] for each in moments if pair in each.shadows]
        compared = sum(each["compared"] for each in told)
        mean = sum(each["overlap"] * each["compared"] for each in told) / compared
        if compared >= LEAST_COMPARED and mean < LEAST_OVERLAP:
            live, shadow = pair.split(" ")
            yield Condition(
                "watch",
                f"{shadow} agrees with {live} on {mean:.0%} of the lists' items only ({compared:.0f} lists compared).",
                "Try shows both side by side. A bundle of other data, or a training that went wrong?",
            )


def _jobs(jobs: Sequence[Mapping[str, Any]]) -> Iterator[Condition]:
    for job in jobs:
        latest = job["runs"][0] if job["runs"] else {}
        if latest.get("outcome") == "failed":
            yield Condition(
                "bad", f"The latest run of the job {job['job']} failed.", "Jobs has the step, and what it said."
            )
        elif latest.get("outcome") == "held":
            yield Condition(
                "watch",
                f"The gate held what the latest run of the job {job['job']} made: labels are where they were.",
                "Jobs has the check that did not pass, and what to look at.",
            )
