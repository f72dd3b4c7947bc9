"""The writer of the log, on pipes that are read, full, closed or unwilling to wait."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from serve.telemetry.logs import JsonFormatter, LogWriter

Pipe = tuple[BinaryIO, int]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader:
        yield reader, writing
    os.close(writing)


def record(number: int) -> logging.LogRecord:
    return logging.LogRecord("lowpass.test", logging.INFO, __file__, 1, "event %d", (number,), None)


def writer(pipe: Pipe, waiting_at_most: int = 8) -> LogWriter:
    made = LogWriter(pipe[1], waiting_at_most)
    made.setFormatter(JsonFormatter({"worker": 3}))
    return made


def eventually(dropped: int, made: LogWriter) -> None:
    give_up = time.monotonic() + 10
    while made.dropped != dropped:
        assert time.monotonic() < give_up, made.dropped
        time.sleep(0.01)


@pytest.mark.parametrize("blocking", [True, False])
def test_lines_come_whole_and_in_order(pipe: Pipe, blocking: bool) -> None:
    os.set_blocking(pipe[1], blocking)
    made = writer(pipe, waiting_at_most=5000)
    for number in range(2000):  # more than a pipe holds
        made.handle(record(number))
    lines = [json.loads(pipe[0].readline()) for _ in range(2000)]
    made.finish()
    assert [line["event"] for line in lines] == [f"event {number}" for number in range(2000)]
    assert {line["worker"] for line in lines} == {3}
    assert made.dropped == 0


def test_what_finds_no_room_is_dropped_and_nobody_waits(pipe: Pipe) -> None:
    os.set_blocking(pipe[1], False)
    while True:
        try:
            os.write(pipe[1], b"x" * 4096)
        except BlockingIOError:
            break
    os.set_blocking(pipe[1], True)
    made = writer(pipe)
    began = time.monotonic()
    for number in range(100):
        made.handle(record(number))
    assert 91 <= made.dropped <= 92, "eight wait, and one may be on its way"
    made.finish(within=0.05)
    assert time.monotonic() - began < 5
    pipe[0].close()  # lets the thread end


def test_a_reader_that_has_gone_costs_its_lines_alone(pipe: Pipe) -> None:
    pipe[0].close()
    made = writer(pipe)
    for number in range(3):
        made.handle(record(number))
    eventually(3, made)
    made.finish()
