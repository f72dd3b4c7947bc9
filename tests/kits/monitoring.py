"""Prometheus, Alertmanager and Pushgateway as an operator runs them, on free ports, by the files of `deploy/`."""

from __future__ import annotations

import contextlib
import http
import json
import shutil
import socket
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.kits.waiting import wait_for

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = ("recording.rules.yml", "alerts.rules.yml")
BINARIES = ("prometheus", "promtool", "prometheus-alertmanager", "amtool", "prometheus-pushgateway")
MISSING = [name for name in BINARIES if shutil.which(name) is None]
WITHIN = 90.0

needs_prometheus = pytest.mark.skipif(
    bool(MISSING),
    reason=f"no {', '.join(MISSING)} here: apt-get install prometheus prometheus-alertmanager prometheus-pushgateway",
)


eventually = partial(wait_for, within=WITHIN)


def read_rules(name: str) -> list[dict[str, Any]]:
    """The rules of a file, all groups together."""
    groups = yaml.safe_load((DEPLOY / "prometheus" / name).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def ask(url: str, **query: str) -> Any:
    """JSON of an address; None where it refuses or is not there yet."""
    words = f"?{urllib.parse.urlencode(query)}" if query else ""
    try:
        with urllib.request.urlopen(url + words, timeout=10) as answer:
            return json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE:  # it starts
            return None
        raise AssertionError(f"{url}{words}: {error.read().decode()}") from error
    except OSError:
        return None


class Webhook:
    """Receives what Alertmanager sends.

    Attributes:
        received: Path, and one alert.
    """

    def __init__(self) -> None:
        self.received: list[tuple[str, dict[str, Any]]] = []
        received = self.received

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                received.extend((self.path, alert) for alert in sent["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def firing(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        return [
            (path, alert)
            for path, alert in list(self.received)
            if alert["labels"]["alertname"] == name and alert["status"] == "firing"
        ]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Prometheus:
    """One that runs, and the gateway that it scrapes.

    Attributes:
        url: Of its API.
        gateway: HOST:PORT of the Pushgateway.
        alertmanager: Of its API; "" for none.
    """

    def __init__(self, url: str, gateway: str, alertmanager: str) -> None:
        self.url, self.gateway, self.alertmanager = url, gateway, alertmanager

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an expression now.

        Raises:
            AssertionError: Prometheus does not take it.
        """
        found = ask(f"{self.url}/api/v1/query", query=expr)
        return [] if found is None else list(found["data"]["result"])

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """What Alertmanager has of an alert."""
        return ask(f"{self.alertmanager}/api/v2/alerts", filter=f'alertname="{name}"') or []


@contextlib.contextmanager
def watching(folder: Path, servers: Sequence[str], webhook: Webhook | None = None) -> Iterator[Prometheus]:
    """Watch servers by the files of `deploy/`, but each second, and with alerts that wait for nothing.

    Args:
        servers: HOST:PORT of their metrics.
        webhook: What Alertmanager tells; without it there is none.
    """
    gateway, prometheus, alertmanager = _free_ports(3)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_running(folder, "prometheus-pushgateway", f"--web.listen-address={gateway}"))
        if webhook is not None:
            _write_alertmanager(folder, webhook.address)
            words = [f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alertmanager"]
            words += [f"--web.listen-address={alertmanager}", "--cluster.listen-address="]
            stack.enter_context(_running(folder, "prometheus-alertmanager", *words))
        _write_prometheus(folder, servers, gateway, alertmanager if webhook is not None else "")
        words = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
        words += [f"--web.listen-address={prometheus}", "--enable-feature=exemplar-storage", "--log.level=warn"]
        stack.enter_context(_running(folder, "prometheus", *words))
        made = Prometheus(f"http://{prometheus}", gateway, f"http://{alertmanager}" if webhook is not None else "")
        count = f'count(up{{job="lowpass"}} == 1) == {len(servers)}'
        eventually(lambda: made.query(count), "Prometheus has scraped all servers")
        yield made


def _write_prometheus(folder: Path, servers: Sequence[str], gateway: str, alertmanager: str) -> None:
    settings = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    targets = {"lowpass": list(servers), "pushgateway": [gateway]}
    for job in settings["scrape_configs"]:
        job["static_configs"] = [{"targets": targets[job["job_name"]]}]
    settings["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager] if alertmanager else []
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    for name in RULES:
        rules = yaml.safe_load((DEPLOY / "prometheus" / name).read_text())
        for rule in (rule for group in rules["groups"] for rule in group["rules"]):
            rule.pop("for", None)
        (folder / name).write_text(yaml.safe_dump(rules))


def _write_alertmanager(folder: Path, webhook: str) -> None:
    text = (DEPLOY / "alertmanager" / "alertmanager.yml").read_text()
    assert "127.0.0.1:9095" in text
    settings = yaml.safe_load(text.replace("127.0.0.1:9095", webhook))
    settings["route"] |= {"group_wait": "1s", "group_interval": "1s"}
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(settings))


@contextlib.contextmanager
def _running(folder: Path, binary: str, *words: str) -> Iterator[None]:
    log = folder / f"{binary}.log"
    with log.open("w") as stream:
        process = subprocess.Popen([binary, *words], stdout=stream, stderr=stream, cwd=folder)
        try:
            listens = next(word.partition("=")[2] for word in words if word.startswith("--web.listen-address"))
            eventually(lambda: process.poll() is not None or _answers(listens), f"{binary} listens")
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.kill()
            process.wait()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
        return True
    return False


def _free_ports(number: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in found]
