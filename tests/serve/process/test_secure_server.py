"""TLS, keys and the plain health port of a real server in a process of its own, asked by the real commands."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

import lowpass
from export.bundle.repository import ModelRepository
from serve.client.errors import KeyRefused
from serve.client.recommender import RecommenderClient
from serve.rpc.credentials import LOOK_AGAIN, new_key
from tests.kits.authority import Authority
from tests.serve.processes import ServerProcess, serving


class Secured:
    """A server with TLS and two keys, and what a caller needs."""

    def __init__(self, server: ServerProcess, ca: Path, reader: str, admin: str, keys: Path) -> None:
        self.server, self.ca, self.reader, self.admin, self.keys = server, ca, reader, admin, keys


@pytest.fixture
def secured(tmp_path: Path, repository: ModelRepository) -> Iterator[Secured]:
    authority = Authority(tmp_path)
    ca = tmp_path / "clients.pem"
    (reader, reader_line), (admin, admin_line) = new_key("reader"), new_key("admin")
    (tmp_path / "keys").write_text(reader_line)
    (tmp_path / "admin-keys").write_text(admin_line)
    files = authority.server
    options = ["--repository", str(repository.root), "--model", "student", "--drain-wait", "0"]
    options += ["--tls-cert", str(files.certificate), "--tls-key", str(files.key)]
    options += ["--api-keys", str(tmp_path / "keys"), "--admin-api-keys", str(tmp_path / "admin-keys")]
    options += ["--admin-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0"]
    with serving(tmp_path, *options) as server:
        yield Secured(server, ca, reader, admin, tmp_path / "keys")
        assert server.terminate() == 0


def test_queries_and_admin_take_their_own_keys_over_tls(
    secured: Secured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["query", "--target", secured.server.address, "--tls-ca", str(secured.ca), "--user", "u1", "--json"]
    change = ["models", "list", "--target", secured.server.admin_address, "--tls-ca", str(secured.ca), "--json"]
    monkeypatch.setenv("LOWPASS_API_KEY", secured.reader)
    assert lowpass.main(ask) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "student"
    assert lowpass.main(change) == 2
    assert "UNAUTHENTICATED" in capsys.readouterr().err
    monkeypatch.setenv("LOWPASS_API_KEY", secured.admin)
    assert lowpass.main(change) == 0
    capsys.readouterr()
    assert lowpass.main(ask) == 2
    assert "no valid API key" in capsys.readouterr().err
    plain = [word for word in ask if word not in {"--tls-ca", str(secured.ca)}]
    assert lowpass.main([*plain, "--timeout", "2"]) == 2


def test_an_emptied_file_of_keys_lets_nobody_in(secured: Secured) -> None:
    credentials = grpc.ssl_channel_credentials(secured.ca.read_bytes())
    with RecommenderClient(secured.server.address, credentials=credentials, api_key=secured.reader) as client:
        assert client.recommend("u1", k=5)
        secured.keys.write_text("")
        time.sleep(LOOK_AGAIN)
        with pytest.raises(KeyRefused):
            client.recommend("u1", k=5)
    assert "no API key is left: nobody may call" in {event["event"] for event in secured.server.events()}


def test_probes_need_neither_tls_nor_key_and_see_nothing_else(secured: Secured) -> None:
    with grpc.insecure_channel(secured.server.health_address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        recommend: Any = channel.unary_unary("/lowpass.v1.RecommenderService/Recommend")
        with pytest.raises(grpc.RpcError) as caught:
            recommend(b"", timeout=5)
    refused: Any = caught.value
    assert refused.code() is grpc.StatusCode.UNIMPLEMENTED


def test_secrets_are_in_no_log_line_and_no_metric(secured: Secured) -> None:
    credentials = grpc.ssl_channel_credentials(secured.ca.read_bytes())
    with RecommenderClient(secured.server.address, credentials=credentials, api_key=secured.reader) as client:
        client.recommend("u1")
    with (
        RecommenderClient(secured.server.address, credentials=credentials, api_key="guess-" + secured.reader) as client,
        pytest.raises(KeyRefused),
    ):
        client.recommend("u1")
    said = secured.server.log.read_text() + secured.server.scrape()
    assert secured.reader not in said
    assert "unauthenticated" in said
