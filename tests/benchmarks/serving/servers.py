"""The servers that are compared, each a process of its own on the same core."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
import pytest

from export.bundle import Bundle
from serve.bench.load import METHOD
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb
from tests.serve.processes import ServerProcess, serving

ROOT = Path(__file__).resolve().parents[3]
RUNTIME = Path(__file__).with_name("mlserver_runtime.py")
MLSERVER = os.environ.get("LOWPASS_MLSERVER_PYTHON", "")
RECOMMEND = METHOD
INFER = "/inference.GRPCInferenceService/ModelInfer"
START_WITHIN = 60.0


def two_cores() -> tuple[int, int]:
    """One for the server and one for the load, or skip."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        pytest.skip("one core: server and load would take time from each other")
    return cores[0], cores[1]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What starts inside runs on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def lowpass(folder: Path, core: int, *arguments: str) -> Iterator[ServerProcess]:
    """`lowpass serve` on one core."""
    folder.mkdir()
    with ExitStack() as stack:
        with pinned(core):
            server = stack.enter_context(serving(folder, "--drain-wait", "0", *arguments))
        yield server


@contextmanager
def echo(folder: Path, core: int, transport: str, answer: bytes) -> Iterator[str]:
    """A bare server that gives one answer; its address."""
    path = folder / f"answer-{transport}"
    path.write_bytes(answer)
    command = [sys.executable, "-m", "tests.benchmarks.serving.echo", "--answer", str(path), "--transport", transport]
    with pinned(core):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.kill()


@contextmanager
def mlserver(folder: Path, core: int, bundle: Path) -> Iterator[str]:
    """MLServer with the bundle's index behind a custom runtime, in its own interpreter; its address."""
    if not MLSERVER:
        pytest.skip("no MLServer: make a virtual environment with mlserver==1.7.1 and faiss-cpu, and name its python in"
                    " LOWPASS_MLSERVER_PYTHON")  # fmt: skip
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    folder.mkdir()
    port, http, metrics = _free_ports(3)
    settings = {"host": "127.0.0.1", "grpc_port": port, "http_port": http, "metrics_port": metrics,
                "parallel_workers": 0, "debug": False}  # fmt: skip
    parameters = {"uri": str(bundle / "index.faiss"), "extra": {"search": manifest["index"]["search"]}}
    model = {"name": "index", "implementation": "mlserver_runtime.Index", "parameters": parameters}
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    (folder / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    (folder / RUNTIME.name).write_bytes(RUNTIME.read_bytes())
    command = [str(Path(MLSERVER).with_name("mlserver")), "start", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder)}
    with pinned(core), (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            grpc.channel_ready_future(channel).result(START_WITHIN)
        _wait_until_loaded(f"127.0.0.1:{port}", folder / "log")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_until_loaded(address: str, log: Path) -> None:
    give_up = time.monotonic() + START_WITHIN
    with grpc.insecure_channel(address) as channel:
        ready: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelReady"
        )
        # ModelReadyRequest{name: "index"}, ModelReadyResponse{ready: true}
        while ready(b"\x0a\x05index", timeout=5) != b"\x08\x01":
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def inference_request(vector: bytes, dim: int) -> bytes:
    """A `ModelInferRequest` of the Open Inference Protocol with one FP32 input of shape (1, dim), raw contents."""
    # Field numbers of the protocol's own .proto; writing three fields by hand spares its generated code.
    tensor = _field(1, b"user") + _field(2, b"FP32") + _field(3, bytes([1]) + _varint(dim))
    return _field(1, b"index") + _field(5, tensor) + _field(7, vector)


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def call_once(address: str, method: str, message: bytes) -> bytes:
    """One answer, and so proof that the message is a good one: h2load does not look at gRPC's status."""
    with grpc.insecure_channel(address) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
        return call(message, timeout=10)


def typical_user(bundle: Bundle) -> str:
    """A user with the median number of seen items."""
    counts = np.diff(bundle.seen_indptr)
    return bundle.user_ids.get(int(np.argsort(counts, kind="stable")[len(counts) // 2]))


def question(user_id: str, k: int = 20, model: str = "") -> bytes:
    """A serialized request of a known user."""
    return pb.RecommendRequest(user_id=user_id, k=k, model=pb.ModelSelector(name=model)).SerializeToString()
