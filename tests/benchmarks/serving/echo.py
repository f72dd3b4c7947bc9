"""The least a server can do: answers every Recommend with the same bytes. `python -m tests.benchmarks.serving.echo`."""

from __future__ import annotations

import argparse
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from serve.bench.load import METHOD
from serve.process.options import ServerOptions

THREADS = ServerOptions().threads


def serve_grpcio(answer: bytes) -> int:
    """grpcio's synchronous server with as many threads as Lowpass takes by default; returns the port."""
    import grpc

    def echo(_request: bytes, _context: Any) -> bytes:
        return answer

    service, _, method = METHOD.strip("/").partition("/")
    server = grpc.server(ThreadPoolExecutor(THREADS))
    handlers: dict[str, Any] = {method: grpc.unary_unary_rpc_method_handler(echo)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    globals()["_server"] = server
    return int(port)


def serve_native(answer: bytes) -> int:
    """pygrpc-native's loop over whatever has arrived; returns the port."""
    from pygrpc_native import EVENT_CALL, NativeGrpcFront

    front = NativeGrpcFront("127.0.0.1:0", [(METHOD, False)], io_threads=1, call_details=True)
    front.start()

    def run() -> None:
        while True:
            for event in front.recv_batch(64) or ():
                if event[0] == EVENT_CALL:
                    front.respond(event[1], answer)

    threading.Thread(target=run, daemon=True).start()
    return int(front.bound_port)


def main() -> None:
    """Serve until killed; the port goes to standard output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answer", type=Path, required=True, help="File of the bytes to answer with.")
    parser.add_argument("--transport", choices=["grpcio", "native"], required=True)
    options = parser.parse_args()
    serve = serve_grpcio if options.transport == "grpcio" else serve_native
    print(serve(options.answer.read_bytes()), flush=True)  # noqa: T201  # the caller reads it
    threading.Event().wait()


if __name__ == "__main__":
    main()
