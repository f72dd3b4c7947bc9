"""What a process that is ready says of addresses that are open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serve.process.lifecycle import ADDRESSES, announce
from serve.process.options import ServerOptions

HERE, KEYS = Path("models"), Path("keys")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"address": "127.0.0.1:1"}, []),
        ({"address": "0.0.0.0:1"}, ["OPEN WITHOUT TLS: anyone who reaches this address can read requests and answers"]),
        ({"repository": HERE, "admin_address": "127.0.0.1:2"}, []),
        (
            {"repository": HERE, "admin_address": "127.0.0.1:2", "api_keys": KEYS, "admin_open": True},
            ["OPEN WITHOUT KEYS: anyone who reaches this address can change what is served"],
        ),
        (
            {"repository": HERE, "admin_address": "0.0.0.0:2", "admin_api_keys": KEYS},
            ["OPEN WITHOUT TLS: anyone who reaches this address can change what is served"],
        ),
    ],
)
def test_open_addresses_are_told_loudly(
    given: dict[str, Any], said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    announce(ServerOptions(**given), {name: str(given.get(name, "")) for name in ADDRESSES})
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == said
