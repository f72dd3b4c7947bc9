"""The console of a real server past loopback's rules: TLS, sizes, and its end."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from export.bundle.repository import ModelRepository
from serve.answers.errors import AddressUnavailable
from serve.console.frontier import UnusableFrontier
from serve.process.options import ServerOptions
from serve.process.server import Server
from serve.rpc.credentials import new_key
from tests.kits.authority import Authority
from tests.serve.processes import ServerProcess, serving


@dataclass
class Secured:
    server: ServerProcess
    authority: Authority
    operator: str
    repository: ModelRepository
    log: Path

    def ask(self, verb: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> tuple[int, Any]:
        host, _, port = self.server.console_address.rpartition(":")
        connection = http.client.HTTPSConnection(host, int(port), context=self.authority.trusting_context(), timeout=30)
        try:
            connection.request(verb, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
            is_json = (answer.headers["Content-Type"] or "").startswith("application/json")
            return answer.status, json.loads(content) if is_json else content
        finally:
            connection.close()


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, repository: ModelRepository) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("console")
    root = folder / "models"
    shutil.copytree(repository.root, root)
    authority = Authority(folder)
    operator, line = new_key("operator")
    (folder / "operators").write_text(line)
    options = ["--repository", str(root), "--drain-wait", "0", "--console-address", "localhost:0"]
    options += ["--tls-cert", str(authority.server.certificate), "--tls-key", str(authority.server.key)]
    options += ["--admin-api-keys", str(folder / "operators")]
    with serving(folder, *options) as server:
        yield Secured(server, authority, operator, ModelRepository(root), folder / "serve.log")
        assert server.terminate() == 0


def test_over_tls_a_change_comes_from_the_https_page(secured: Secured) -> None:
    key = {"Authorization": f"Bearer {secured.operator}"}
    assert secured.ask("GET", "/")[0] == 200
    assert secured.ask("GET", "/v1/overview")[0] == 401
    status, overview = secured.ask("GET", "/v1/overview", headers=key)
    assert (status, overview["serving"], overview["may_change"]) == (200, True, True)
    move = json.dumps({"model": "student", "label": "next", "revision": "1"}).encode()
    address = secured.server.console_address
    assert secured.ask("POST", "/v1/setLabel", move, {"Origin": f"http://{address}", **key})[0] == 403
    assert secured.ask("POST", "/v1/setLabel", move, {"Origin": f"https://{address}", **key})[0] == 200
    assert secured.repository.labels("student")["next"] == "1"
    assert secured.operator not in secured.log.read_text()


def test_sizes_are_bounded_before_they_are_read(secured: Secured) -> None:
    key = {"Authorization": f"Bearer {secured.operator}"}
    assert secured.ask("POST", "/v1/recommend", b" " * ((1 << 20) + 1), key)[0] == 413
    assert secured.ask("GET", "/v1/overview", headers={**key, "Cookie": "x" * (17 << 10)})[0] == 431
    assert secured.ask("POST", "/v1/recommend", b"[" * 100_000, key)[0] == 400


def test_it_ends_with_its_server(repository: ModelRepository) -> None:
    options = ServerOptions(
        repository=repository.root,
        address="127.0.0.1:0",
        metrics_address="",
        console_address="127.0.0.1:0",
        drain_wait=0.0,
    )
    server = Server(options)
    server.start()
    host, _, port = server.console_address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read().startswith(b"<!doctype html>")
    assert server.stop()
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=10)


def test_what_it_cannot_have_is_named_before_anything_is_served(tmp_path: Path) -> None:
    with pytest.raises(UnusableFrontier, match=r"--frontier .*frontier.json: cannot be read"):
        Server(ServerOptions(console_address="127.0.0.1:0", frontier=tmp_path))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = Server(ServerOptions(address="127.0.0.1:0", metrics_address="", console_address=address))
        with pytest.raises(AddressUnavailable, match=f"--console-address {address}: cannot be bound"):
            server.start()
