from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from serve.answers.errors import ExtraMissing
from serve.answers.limits import Limits
from serve.client.recommender import RecommenderClient
from serve.process.options import ServerOptions
from serve.transport.choice import choose_transport
from serve.transport.grpcio import GrpcioServer
from tests.serve.processes import serving


def hide(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def find(name: str, *rest: Any) -> Any:
        return None if name == "pygrpc_native" else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def test_without_the_package_native_is_refused_and_auto_is_grpcio(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch)
    with pytest.raises(ExtraMissing, match=r"pip install 'lowpass\[native\]'"):
        choose_transport("native", needs_grpcio=False)
    assert choose_transport("auto", needs_grpcio=False) == ("grpcio", GrpcioServer)


def test_auto_takes_native_only_where_nothing_is_missing() -> None:
    pytest.importorskip("pygrpc_native", reason="the extra 'native' is not installed")
    assert choose_transport("auto", needs_grpcio=False)[0] == "native"
    assert choose_transport("auto", needs_grpcio=True)[0] == "grpcio"
    assert choose_transport("grpcio", needs_grpcio=False)[0] == "grpcio"


def test_what_asks_for_grpcio() -> None:
    assert not ServerOptions().needs_grpcio
    assert ServerOptions(tls_cert=Path("cert"), tls_key=Path("key")).needs_grpcio
    assert ServerOptions(limits=Limits(max_connection_age=60.0)).needs_grpcio
    assert ServerOptions(address="0.0.0.0:50051").needs_grpcio
    assert not ServerOptions(address="unix:/run/lowpass.sock").needs_grpcio


def test_a_native_server_in_a_process_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("pygrpc_native", reason="the extra 'native' is not installed")
    with serving(tmp_path, "--fake", "--transport", "native", "--drain-wait", "0") as server:
        with RecommenderClient(server.address) as client:
            answers = [client.recommend(f"user-{user}", k=3) for user in range(8)]
            assert len(client.info().models) == 1
        assert [len(answer) for answer in answers] == [3] * 8
        assert server.terminate() == 0
        (ready,) = [event for event in server.events() if event["event"] == "ready"]
    assert ready["transport"] == "native"
