from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import click
import pytest
from click.testing import CliRunner

from serve.answers.limits import Limits
from serve.process.options import limit_options


def made(*words: str) -> Limits:
    found: list[Limits] = []

    @click.command()
    @limit_options
    def command(limits: Callable[[], Limits]) -> None:
        found.append(limits())

    result = CliRunner().invoke(command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found[0]


def test_without_options_they_are_the_defaults() -> None:
    assert made() == Limits()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_in_flight", 7),
        ("max_wait", 0.5),
        ("max_deadline", 3.0),
        ("max_k", 50),
        ("max_batch", 5),
        ("max_stream", 6),
        ("max_message_bytes", 4096),
        ("max_connection_age", 60.0),
        ("max_concurrent_streams", 8),
    ],
)
def test_each_option_is_a_bound(option: str, value: Any) -> None:
    assert made(f"--{option.replace('_', '-')}", str(value)) == dataclasses.replace(Limits(), **{option: value})


def test_the_default_k_is_never_refused() -> None:
    assert (made("--max-k", "3").default_k, made("--max-k", "30").default_k) == (3, 10)
