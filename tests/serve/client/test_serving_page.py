"""The calls that docs/serving.md shows: run as they stand there, against a server with TLS and keys."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from serve.client import RecommenderClient
from serve.client.recommender import CHANNEL_OPTIONS, MAX_ANSWER_BYTES, SERVICE_CONFIG
from serve.process.options import ServerOptions
from serve.process.server import Server
from serve.rpc.credentials import add_key
from tests.kits.authority import Authority

PAGE = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()
USER, ADDRESS, HTTP = "u0007", "dns:///recommender:50051", "https://recommender:8080"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def as_here(code: str, address: str, here: str, patience: str, more: str) -> str:
    """Code of the page with the address and the user of this test, and patience for a slow machine."""
    assert all(code.count(each) == 1 for each in (address, patience, USER))
    return code.replace(address, here).replace(patience, more).replace(USER, "user-7")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path, str]]:
    """A server with TLS and keys, a folder of what a caller has, and a key."""
    folder = tmp_path_factory.mktemp("caller")
    authority = Authority(folder)
    authority.first.cert_pem.write_to_path(folder / "ca.pem")
    (config,) = blocks("json")
    (folder / "service-config.json").write_text(config)
    key = add_key(folder / "keys.txt", "website")
    options = ServerOptions(
        address="127.0.0.1:0",
        http_address="127.0.0.1:0",
        metrics_address="127.0.0.1:0",
        tls_cert=authority.server.certificate,
        tls_key=authority.server.key,
        api_keys=folder / "keys.txt",
        drain_wait=0.0,
    )
    running = Server(options)
    running.start()
    yield running, folder, key
    running.stop()


@pytest.mark.parametrize("place", [0, 1], ids=["SDK", "gRPC alone"])
def test_the_python_of_the_page_gets_an_answer(
    server: tuple[Server, Path, str], place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, folder, key = server
    monkeypatch.chdir(folder)
    monkeypatch.setenv("LOWPASS_API_KEY", key)
    code = blocks("python")[place]
    port = running.address.rpartition(":")[2]
    # The caller's patience is for a quick machine; the rest is as it stands.
    code = (
        code.replace(ADDRESS, f"dns:///localhost:{port}").replace(USER, "user-7").replace("timeout=0.5", "timeout=20")
    )
    printed, names = io.StringIO(), dict[str, Any]()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/serving.md", "exec"), names)
    for each in ("client", "channel"):
        if each in names:
            names[each].close()
    assert printed.getvalue().startswith("('item-7'" if place == 0 else "['item-7'")


def test_the_curl_of_the_page_gets_an_answer(server: tuple[Server, Path, str]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    running, folder, key = server
    (line,) = blocks("sh")
    port = running.http_address.rpartition(":")[2]
    line = as_here(line, HTTP, f"https://localhost:{port}", "--max-time 1", "--max-time 20")

    def ask(shown: str) -> subprocess.CompletedProcess[str]:
        environment = {"LOWPASS_API_KEY": shown, "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            ["sh", "-c", line], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )

    done = ask(key)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["item_ids"][0] == "item-7"
    assert ask("wrong").returncode == 22  # --fail: HTTP 401


def test_the_config_of_the_page_is_that_of_the_sdk_and_deals_out_calls() -> None:
    shown, own = json.loads(blocks("json")[0]), json.loads(SERVICE_CONFIG)
    assert shown.pop("loadBalancingConfig") == [{"round_robin": {}}]
    assert shown == own
    options = dict(CHANNEL_OPTIONS)
    assert options["grpc.keepalive_time_ms"] == 30_000
    assert options["grpc.max_receive_message_length"] == MAX_ANSWER_BYTES == 64 << 20
    assert PAGE.count("64 << 20") + PAGE.count("64<<20") == 3


def test_round_robin_as_the_page_asks_for_it_meets_every_server() -> None:
    """A name with several addresses, here a list of them, as a headless Service gives."""
    options = ServerOptions(address="127.0.0.1:0", metrics_address="127.0.0.1:0", drain_wait=0.0)
    servers = [Server(options), Server(options)]
    for each in servers:
        each.start()
    try:
        target = "ipv4:" + ",".join(each.address for each in servers)
        with RecommenderClient(target, timeout=20, options=[("grpc.lb_policy_name", "round_robin")]) as client:
            for each in servers:  # the policy deals out calls among those that it is connected to
                with RecommenderClient(each.address) as one:
                    one.wait_ready(20)
            while not all(each.metrics.handled().get("OK", 0) for each in servers):
                client.recommend("user-7", k=1)
            before = [each.metrics.handled()["OK"] for each in servers]
            for _ in range(40):
                client.recommend("user-7", k=1)
            counts = [each.metrics.handled()["OK"] - had for each, had in zip(servers, before, strict=True)]
            assert counts == [20, 20]
    finally:
        for each in servers:
            each.stop()


def test_a_key_is_needed(server: tuple[Server, Path, str]) -> None:
    running, folder, _ = server
    credentials = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes())
    from serve.client import KeyRefused

    with (
        RecommenderClient(running.address, timeout=20, credentials=credentials) as client,
        pytest.raises(KeyRefused),
    ):
        client.recommend("user-7")
