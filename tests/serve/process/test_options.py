"""Options as a program sets them; `tests/serve/commands/test_serve.py` sets them by words and files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from serve.answers.errors import WrongOptions
from serve.answers.limits import Limits
from serve.live.shadow import ShadowRule
from serve.process.options import GROUPS, LIMITS, ServerOptions, declarations, make_options, read_share
from serve.rpc.credentials import TlsFiles

HERE, KEYS, LOCAL = Path("models"), Path("keys"), "127.0.0.1:50052"


def test_every_option_is_in_a_group_and_says_what_it_is() -> None:
    declared = list(declarations())
    assert {each.metadata.get("group", LIMITS) for each in declared} == set(GROUPS)
    assert all(each.metadata["help"].endswith(".") for each in declared)
    names = [each.metadata.get("name", each.name) for each in declared]
    assert len(names) == len(set(names))


def test_every_field_but_the_limits_is_an_option() -> None:
    fields = {each.name for each in dataclasses.fields(ServerOptions)} - {"limits"}
    assert fields <= {each.name for each in declarations()}


def test_one_flat_mapping_makes_options_and_limits() -> None:
    assert make_options({}) == ServerOptions()
    assert make_options({"max_k": 50, "threads": 2}) == ServerOptions(limits=Limits(max_k=50), threads=2)


def test_the_default_k_is_never_refused() -> None:
    assert (Limits(max_k=3).default_k, Limits(max_k=30).default_k) == (3, 10)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"models": ("m",)}, "need --repository"),
        ({"splits": ("m:canary=0.1",)}, "need --repository"),
        ({"shadows": ("m:n=0.1",)}, "need --repository"),
        ({"watch": 1.0}, "need --repository"),
        ({"indexes": ("milvus://h:1/items",)}, "--index needs --repository"),
        ({"repository": HERE, "mirror": Path("m")}, "--mirror: is of an s3:// repository"),
        ({"admin_address": "127.0.0.1:0"}, "need --repository"),
        ({"tls_cert": Path("a")}, "--tls-cert and --tls-key go together"),
        ({"tls_key": Path("a")}, "--tls-cert and --tls-key go together"),
        ({"tls_client_ca": Path("a")}, "--tls-client-ca needs"),
        ({"ready_file": Path("no/such/directory/file")}, "its directory does not exist"),
        (
            {"repository": HERE, "admin_address": "0.0.0.0:1"},
            "other machines reach it.* --admin-api-keys FILE",
        ),
        ({"repository": HERE, "admin_address": "box:1", "api_keys": KEYS}, "box:1: other machines reach it"),
        ({"repository": HERE, "admin_address": LOCAL, "api_keys": KEYS}, "changing models none: give --admin-api-keys"),
        ({"repository": HERE, "admin_open": True}, "--admin-open needs --admin-address"),
        ({"repository": HERE, "admin_address": LOCAL, "admin_api_keys": KEYS, "admin_open": True}, "goes without"),
        ({"jobs": HERE}, "give --console-address"),
        ({"frontier": HERE}, "give --console-address"),
        ({"console_address": LOCAL, "workers": 2}, "--console-address with --workers needs --repository"),
        ({"repository": HERE, "console_address": "0.0.0.0:1"}, "--tls-cert.*--admin-api-keys FILE.*ssh -L"),
        ({"console_address": "box:1", "admin_api_keys": KEYS}, "box:1: other machines reach it"),
        ({"console_address": "box:1", "tls_cert": HERE, "tls_key": HERE}, "box:1: other machines reach it"),
        ({"console_address": LOCAL, "api_keys": KEYS}, "by the console none: give --admin-api-keys"),
        ({"repository": HERE, "splits": ("student=0.05",)}, "--split student=0.05: give MODEL:LABEL=SHARE"),
        ({"repository": HERE, "shadows": ("student=0.1",)}, "--shadow student=0.1: give MODEL:OTHER=SHARE"),
        ({"repository": HERE, "splits": ("student:canary=2",)}, "a share above 0, at most 1"),
    ],
)
def test_contradictions_are_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(WrongOptions, match=said) as caught:
        ServerOptions(**given)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "given",
    [
        {"admin_address": LOCAL},
        {"admin_address": LOCAL, "workers": 2},
        {"admin_address": "[::1]:50052"},
        {"admin_address": LOCAL, "api_keys": KEYS, "admin_api_keys": KEYS},
        {"admin_address": "0.0.0.0:50052", "admin_api_keys": KEYS},
        {"admin_address": "0.0.0.0:50052", "admin_open": True},
        {"admin_address": LOCAL, "api_keys": KEYS, "admin_open": True},
    ],
)
def test_changing_models_is_open_on_loopback_or_by_name(given: dict[str, Any]) -> None:
    assert ServerOptions(repository=HERE, **given).admin_address == given["admin_address"]


@pytest.mark.parametrize(
    "given",
    [
        {"console_address": LOCAL},
        {"console_address": LOCAL, "workers": 2, "repository": HERE},
        {"console_address": "unix:/run/console.sock"},
        {"console_address": LOCAL, "api_keys": KEYS, "admin_api_keys": KEYS},
        {"console_address": "0.0.0.0:1", "tls_cert": HERE, "tls_key": HERE, "admin_api_keys": KEYS},
    ],
)
def test_the_console_is_for_this_machine_or_for_keys_over_tls(given: dict[str, Any]) -> None:
    assert ServerOptions(**given).console_address == given["console_address"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(WrongOptions, match=r"--max-wait (nan|inf): give a finite number"):
        make_options({"max_wait": value})


def test_splits_and_shadows_are_read() -> None:
    options = ServerOptions(
        repository=HERE,
        splits=("a:canary=0.05", "a:next=0.1", "b:canary=1"),
        shadows=("a:b=0.5", "b:a:canary=0.1"),
    )
    assert options.split_shares == {"a": {"canary": 0.05, "next": 0.1}, "b": {"canary": 1.0}}
    assert options.shadow_rules == {"a": ShadowRule("b", "", 0.5), "b": ShadowRule("a", "canary", 0.1)}


def test_certificates_go_together() -> None:
    assert ServerOptions().tls is None
    options = ServerOptions(tls_cert=Path("c"), tls_key=Path("k"), tls_client_ca=Path("a"))
    assert options.tls == TlsFiles(Path("c"), Path("k"), Path("a"))


@pytest.mark.parametrize("text", ["canary", "=0.5", "canary=", "canary=x", "canary=0", "canary=-1", "canary=1.5"])
def test_a_share_is_a_name_and_a_number(text: str) -> None:
    with pytest.raises(WrongOptions, match="give NAME=SHARE"):
        read_share(text)
    assert read_share("canary=0.25") == ("canary", 0.25)
