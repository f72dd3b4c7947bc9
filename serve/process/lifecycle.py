"""What a process that serves tells its surroundings, by the log and the ready file, and what it is told: to stop."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from export.bundle.repository import write_file
from serve.process.options import ServerOptions
from serve.transport.address import is_local

LOG = logging.getLogger("lowpass.serve")
ADDRESSES = ("address", "metrics_address", "admin_address", "health_address", "http_address", "console_address")
READ, CHANGE = "read requests and answers", "change what is served"
HARM = {"address": READ, "admin_address": CHANGE, "http_address": READ}
"""Address → what anyone who reaches it can do where it is in plain text."""


def announce(options: ServerOptions, ready: Mapping[str, Any]) -> None:
    """Say that all is ready: in the log, loudly where an address is open in plain text, and in the ready file.

    Args:
        ready: Addresses under the names of `ADDRESSES`, empty where there is none, and whatever else is known.
    """
    for name, harm in HARM.items():
        address = ready[name]
        if address and options.tls_cert is None and not is_local(address):
            warning = f"OPEN WITHOUT TLS: anyone who reaches this address can {harm}"
            LOG.warning(warning, extra={"fields": {"address": address}})
    if options.admin_open:
        warning = f"OPEN WITHOUT KEYS: anyone who reaches this address can {CHANGE}"
        LOG.warning(warning, extra={"fields": {"address": ready["admin_address"]}})
    known = {name: value for name, value in ready.items() if value}
    LOG.info("ready", extra={"fields": known})
    if options.ready_file is not None:
        write_file(options.ready_file, (json.dumps(known) + "\n").encode())


@contextmanager
def stop_signals(tell: Callable[[str], None]) -> Iterator[None]:
    """Instead of dying of SIGTERM and SIGINT, pass on their names.

    Args:
        tell: Called in the middle of anything; `SimpleQueue.put` may be, `Event.set` may not.
    """
    signals = (signal.SIGTERM, signal.SIGINT)
    previous = {number: signal.signal(number, lambda got, _: tell(signal.Signals(got).name)) for number in signals}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
