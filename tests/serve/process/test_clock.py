"""The wall clock jumps while a server serves."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serve.process.options import ServerOptions
from serve.process.server import Server
from serve.transport.choice import TransportName
from tests.serve.process.test_faults import TRANSPORTS
from tests.test_laws import ROOT, SOURCES, name_of, read_tree

WALL = {"time.time", "time.time_ns", "time_ns", "datetime.now", "datetime.utcnow"}
SAYS_WHEN = {"serve/telemetry/traces.py"}
"""Spans carry the time of day; their lengths come from the other clock."""


@pytest.mark.parametrize("path", [each for each in SOURCES if each.is_relative_to(ROOT / "serve")], ids=name_of)
def test_nothing_that_serves_reads_the_wall_clock(path: Path) -> None:
    called = {ast.unparse(node.func) for node in ast.walk(read_tree(path)) if isinstance(node, ast.Call)}
    assert name_of(path) in SAYS_WHEN or not called & WALL


ASK = """
import sys, grpc
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from serve.rpc.pb.lowpass.v1.recommender_pb2_grpc import RecommenderServiceStub
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = RecommenderServiceStub(channel)
    for _ in range(50):
        answer = stub.Recommend(pb.RecommendRequest(user_id="user-1", k=3))
        assert len(answer.item_ids) == 3
        assert 0 < answer.timings.total_us < 60_000_000
"""


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_jumps_of_an_hour_forth_and_back(transport: TransportName, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried: the server's wall clock an hour ahead, then an hour behind, before and while it is asked. Lost: nothing.

    The callers send no deadline: grpcio's servicer context takes what remains of one from the wall clock, so a request
    with a deadline that waits for a worker in the very moment of a jump may be told that its time is up.
    """
    options = ServerOptions(address="127.0.0.1:0", metrics_address="127.0.0.1:0", drain_wait=0.0, transport=transport)
    server = Server(options)
    server.start()
    real = time.time
    try:
        for jump in (0.0, 3600.0, -3600.0):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            subprocess.run([sys.executable, "-c", ASK, server.address], check=True, timeout=60)
        assert server.metrics.handled() == {"OK": 150}
        assert server.admission.expected_wait == 0
    finally:
        monkeypatch.undo()
        assert server.stop()
