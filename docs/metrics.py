"""The table of every series, docs/metrics.md, made from the server's own registries.

python docs/metrics.py             # writes docs/metrics.md
python docs/metrics.py --check     # says whether it is stale, exit code 1
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector
from tabulate import tabulate

from serve.process.supervisor import MergedSeries
from serve.telemetry.metrics import BUCKETS, DroppedLines, Metrics

PAGE = Path(__file__).parent / "metrics.md"
HEAD = """# Metrics

Made by `python docs/metrics.py` from the server's own registries; do not edit.

Every series of `lowpass serve` at `--metrics-address`, and of `lowpass job` in its textfile or Pushgateway. What to do
when they are bad: [runbooks.md](runbooks.md); what uses them: [`deploy/prometheus`](../deploy/prometheus),
[`deploy/grafana`](../deploy/grafana). Beside them are the usual `process_*` and `python_info`, and with `--workers`
`lowpass_supervisor_process_*` of the process that watches them; every series of the server then has the label `worker`,
too.

A histogram NAME has `NAME_bucket` with the label `le`, `NAME_sum` and `NAME_count`. Durations have these bounds, in
seconds:
"""
UNITS = {
    "lowpass_requests_in_flight": "requests",
    "lowpass_bundle_info": "1",
    "lowpass_model_quality": "share, 0 to 1",
    "lowpass_index_ann_recall": "share, 0 to 1",
    "lowpass_items": "items",
    "lowpass_users": "users",
    "lowpass_shadow_overlap": "share, 0 to 1",
    "lowpass_shadow_rank_correlation": "-1 to 1",
    "lowpass_index_breaker_open": "1 or 0",
    "lowpass_worker_up": "1 or 0",
    "lowpass_job_last_outcome": "1 or 0",
    "lowpass_job_gate_value": "the check's",
    "lowpass_job_gate_bound": "the check's",
    "lowpass_job_gate_passed": "1 or 0",
}
"""Of what does not say it by its name."""


@dataclass(frozen=True)
class Series:
    """A family."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def unit(self) -> str:
        """What one of it is."""
        for ending, unit in (
            ("_timestamp_seconds", "seconds since 1970"),
            ("_seconds", "seconds"),
            ("_bytes", "bytes"),
            ("_total", "count"),
        ):
            if self.name.endswith(ending):
                return unit
        return UNITS[self.name]


JOBS = [
    Series(f"lowpass_job_{name}", "gauge", ("job_name", *labels), meaning)
    for name, labels, meaning in (
        ("last_success_timestamp_seconds", (), "When a run last published, or had nothing to do."),
        ("last_run_timestamp_seconds", (), "When a run last ended."),
        (
            "last_outcome",
            ("outcome",),
            "1 for how the last run ended: published (or nothing to do), held by the gate, or failed.",
        ),
        ("step_duration_seconds", ("step",), "How long a step took, the last time that it was done and not reused."),
        ("gate_value", ("check",), "What the gate measured of the last version that it looked at."),
        ("gate_bound", ("check",), "The bound that the gate holds it to."),
        ("gate_passed", ("check",), "1 where the last version kept within the bound, else 0."),
    )
]


def read(collector: Collector) -> Iterator[Series]:
    """The families of a collector, whether it has samples yet or not."""
    for family in collector.collect():
        # Nothing public tells the labels of a family that has no samples.
        labels = getattr(collector, "_labelnames", None) or getattr(family, "_labelnames", ())
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield Series(name, family.type, tuple(labels), family.documentation)


def served() -> list[Series]:
    """All of a server, one process or several."""
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.watch_log(lambda: 0)
    metrics.watch_certificates(dict)
    supervisor = (MergedSeries(list), DroppedLines("lowpass_supervisor_log_lines_dropped", lambda: 0))
    collectors = [*registry._collector_to_names, *supervisor]
    return [each for collector in collectors for each in read(collector) if each.name.startswith("lowpass_")]


def write() -> str:
    """The page."""
    rows = [
        (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), each.meaning, each.unit)
        for each in sorted([*served(), *JOBS], key=lambda each: each.name)
    ]
    table = tabulate(rows, ("name", "type", "labels", "meaning", "unit"), tablefmt="github", disable_numparse=True)
    compact = re.sub("-{3,}", "---", re.sub(" {2,}", " ", table))
    return f"{HEAD}{', '.join(map(str, BUCKETS))}.\n\n{compact}\n"


def main(words: Sequence[str]) -> int:
    """Write the page, or look whether it is what this file makes; returns the exit code."""
    if set(words) - {"--check"}:
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    if "--check" not in words:
        PAGE.write_text(write(), encoding="utf-8")
    elif PAGE.read_text(encoding="utf-8") != write():
        print(f"{PAGE}: stale: run python docs/metrics.py", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
