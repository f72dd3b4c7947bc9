"""Both ends of a worker's pipe, without its process; `test_workers.py` has the whole."""

from __future__ import annotations

from queue import SimpleQueue
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from serve.process.worker import ALIVE, SERIES, SERVE, SPAWN, SUPERVISOR_GONE, _answer, _Supervisor
from serve.telemetry.metrics import Metrics

WITHIN = 20.0


def test_a_worker_answers_while_it_is_well_and_not_while_it_is_stuck() -> None:
    ours, theirs = SPAWN.Pipe()
    server: Any = SimpleNamespace(is_stuck=False, metrics=Metrics(CollectorRegistry()))
    allowed, told = Event(), SimpleQueue[str]()
    thread = Thread(target=_answer, args=(_Supervisor(theirs), server, allowed, told.put), daemon=True)
    thread.start()
    ours.send_bytes(ALIVE)
    assert ours.poll(WITHIN)
    assert ours.recv_bytes() == ALIVE
    server.is_stuck = True
    ours.send_bytes(ALIVE)
    ours.send_bytes(SERIES)
    assert ours.recv_bytes().startswith(b"# HELP"), "the series come, and no sign of life before them"
    assert not allowed.is_set()
    ours.send_bytes(SERVE)
    assert allowed.wait(WITHIN)
    ours.close()
    assert told.get(timeout=WITHIN) == SUPERVISOR_GONE
    thread.join(WITHIN)


def test_a_supervisor_that_is_gone_is_told_nothing() -> None:
    ours, theirs = SPAWN.Pipe()
    ours.close()
    _Supervisor(theirs).tell({"models": []})
    with pytest.raises(OSError, match="Broken pipe"):
        _Supervisor(theirs).say(ALIVE)
