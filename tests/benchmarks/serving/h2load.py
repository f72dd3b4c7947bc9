"""HTTP/2 load written in C (nghttp2's h2load): a Python client is slower than the servers measured here."""

from __future__ import annotations

import re
import shutil
import statistics
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

WARM_UP = 500
CONNECTIONS = 8


@dataclass(frozen=True)
class Load:
    """What one run of h2load saw.

    Attributes:
        per_second: Answers a second.
        p50_us: Median latency, microseconds.
        p99_us: Its 99th percentile.
        bytes_each: Of data an answer, framing of gRPC included.
    """

    per_second: float
    p50_us: float
    p99_us: float
    bytes_each: float


def require_h2load() -> None:
    """Skip the benchmark where it is not installed."""
    if shutil.which("h2load") is None:
        pytest.skip("no h2load here: apt-get install nghttp2-client")


def ask(address: str, method: str, message: bytes, *, in_flight: int, requests: int, core: int) -> Load:
    """Send one message again and again over one connection.

    Args:
        address: Of the server.
        method: /package.Service/Method.
        message: Serialized request.
        in_flight: How many at any time.
        requests: How many in all, after a warm-up.
        core: The load's.
    """
    with _sending(message, core, "-c", "1", "-m", str(in_flight)) as (command, folder):
        target = f"http://{address}{method}"
        subprocess.run([*command, "-n", str(WARM_UP), target], capture_output=True, check=True)
        command += ["-n", str(requests), f"--log-file={folder / 'log'}", target]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rows = np.loadtxt(folder / "log", dtype=np.int64, ndmin=2)
    assert f"{requests} succeeded" in said, said
    assert (rows[:, 1] == 200).all()
    return Load(
        per_second=_number(r"finished in \S+ ([\d.]+) req/s", said),
        p50_us=float(np.percentile(rows[:, 2], 50)),
        p99_us=float(np.percentile(rows[:, 2], 99)),
        bytes_each=_number(r"\((\d+)\) data", said) / requests,
    )


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, text
    return float(found.group(1))


def flood(address: str, method: str, message: bytes, *, rate: float, seconds: float, core: int) -> None:
    """Send one message at a rate over several connections, whether or not earlier ones are answered.

    Args:
        address: Of the server.
        method: /package.Service/Method.
        message: Serialized request.
        rate: Requests a second in all.
        seconds: How long.
        core: The load's.
    """
    with _sending(message, core, "-c", str(CONNECTIONS), "-m", "1000") as (command, _):
        command += [f"--rps={rate / CONNECTIONS:.1f}", "-D", f"{seconds:g}", f"http://{address}{method}"]
        subprocess.run(command, capture_output=True, check=True)


@contextmanager
def _sending(message: bytes, core: int, *options: str) -> Iterator[tuple[list[str], Path]]:
    """The beginning of a command that sends a gRPC message, and a folder that is there meanwhile."""
    with tempfile.TemporaryDirectory(prefix="lowpass-h2load-") as name:
        folder = Path(name)
        (folder / "body").write_bytes(b"\0" + struct.pack(">I", len(message)) + message)
        command = ["taskset", "-c", str(core), "h2load", "-t", "1", *options, "-d", str(folder / "body")]
        yield [*command, "-H", "content-type: application/grpc", "-H", "te: trailers"], folder


def median_of(loads: list[Load]) -> Load:
    """The median of each figure over several runs."""
    return Load(*(statistics.median(getattr(load, name) for load in loads) for name in Load.__dataclass_fields__))
