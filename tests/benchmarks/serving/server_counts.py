"""What a server counted while something happened to it: its own view, free of the load generator's delays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from tests.serve.processes import ServerProcess

DURATION = "lowpass_request_duration_seconds"


@dataclass
class Seen:
    """What the server counted meanwhile.

    Attributes:
        codes: Requests by status.
        p99: Upper bound of the 99th percentile of what was answered, seconds.
    """

    codes: Counter[str]
    p99: float


def read(server: ServerProcess) -> tuple[Counter[str], Counter[float]]:
    """Requests by status, and answered ones by the bucket they fell into."""
    codes: Counter[str] = Counter()
    buckets: Counter[float] = Counter()
    for family in text_string_to_metric_families(server.scrape()):
        for sample in family.samples if family.name == DURATION else ():
            if sample.name.endswith("_count"):
                codes[sample.labels["code"]] += int(sample.value)
            if sample.name.endswith("_bucket") and sample.labels["code"] == "OK":
                buckets[float(sample.labels["le"])] += int(sample.value)
    return codes, buckets


@contextmanager
def watching(server: ServerProcess, into: list[Seen]) -> Iterator[None]:
    """Count what happens inside."""
    codes, buckets = read(server)
    yield
    codes_after, buckets_after = read(server)
    within = {bound: buckets_after[bound] - buckets[bound] for bound in sorted(buckets_after)}
    enough = 0.99 * within[float("inf")]
    into.append(Seen(codes_after - codes, next(bound for bound, count in within.items() if count >= enough)))
