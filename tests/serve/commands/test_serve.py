"""`lowpass serve`: its options by words and by `serve.toml`, its grouped help, and what it refuses."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

import lowpass
from serve.answers.limits import Limits
from serve.process.options import GROUPS, ServerOptions, declarations


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--fake", "--repository", "x"],
        ["--fake", "--model", "m"],
        ["--repository", "/nowhere/at/all", "--address", "127.0.0.1:0", "--metrics-address", "127.0.0.1:0"],
        ["--fake", "--address", "nonsense"],
        ["--fake", "--transport", "native", "--max-connection-age", "60"],
        ["--fake", "--max-k", "0"],
        ["--fake", "--metrics-address", "127.0.0.1:99999"],
        ["--fake", "--tls-cert", "cert.pem"],
        ["--fake", "--workers", "2", "--admin-address", "127.0.0.1:0"],
        ["--repository", "models", "--split", "student=0.5"],
        ["--repository", "models", "--admin-address", "0.0.0.0:50052"],
        ["--repository", "models", "--admin-address", "127.0.0.1:50052", "--api-keys", "keys"],
    ],
)
def test_serve_refuses_what_it_cannot_do(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert lowpass.main(["serve", *words]) == 2
    assert capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(["serve", "--help"]) == 0
    assert "Example: lowpass serve" in capsys.readouterr().out


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ServerOptions]:
    """What servers would have been started with."""
    found: list[ServerOptions] = []

    def take(options: ServerOptions) -> int:
        found.append(options)
        return 0

    monkeypatch.setattr("serve.process.server.run", take)
    monkeypatch.setattr("serve.process.supervisor.run", take)
    return found


def made(started: list[ServerOptions], *words: str) -> ServerOptions:
    assert lowpass.main(["serve", *words]) == 0
    return started.pop()


def test_without_options_they_are_the_defaults(started: list[ServerOptions]) -> None:
    assert made(started, "--fake") == ServerOptions()


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
def test_each_limit_is_a_bound(started: list[ServerOptions], option: str, value: Any) -> None:
    limits = made(started, "--fake", f"--{option.replace('_', '-')}", str(value)).limits
    assert limits == dataclasses.replace(Limits(), **{option: value})


def test_the_default_k_is_never_refused(started: list[ServerOptions]) -> None:
    assert made(started, "--fake", "--max-k", "3").limits.default_k == 3
    assert made(started, "--fake", "--max-k", "30").limits.default_k == 10


EVERYTHING = """
threads = 2

[models]
repository = "models"
model = ["student", "teacher:canary"]
split = ["student:canary=0.05"]
shadow = ["student:teacher=0.1"]
watch = 5
verify = false
copy-up-to = 0

[who_may_call]
tls_cert = "cert.pem"
tls_key = "key.pem"

[limits]
max_k = 50
max-wait = 0.5

[watching]
access_log = 0.25
"""


def test_a_file_sets_any_option_and_the_command_line_wins(started: list[ServerOptions], tmp_path: Path) -> None:
    config = tmp_path / "serve.toml"
    config.write_text(EVERYTHING)
    wanted = ServerOptions(
        repository=Path("models"),
        models=("student", "teacher:canary"),
        splits=("student:canary=0.05",),
        shadows=("student:teacher=0.1",),
        watch=5.0,
        verify=False,
        copy_up_to=0,
        tls_cert=Path("cert.pem"),
        tls_key=Path("key.pem"),
        threads=2,
        limits=Limits(max_k=50, max_wait=0.5),
        access_log=0.25,
    )
    assert made(started, "--config", str(config)) == wanted
    over = made(started, "--max-k", "7", "--config", str(config), "--model", "other", "--verify")
    limits = dataclasses.replace(wanted.limits, max_k=7, default_k=7)
    assert over == dataclasses.replace(wanted, models=("other",), verify=True, limits=limits)


def test_the_options_in_force_are_a_file_that_sets_them(
    started: list[ServerOptions], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, printed = tmp_path / "serve.toml", tmp_path / "printed.toml"
    config.write_text(EVERYTHING)
    wanted = made(started, "--config", str(config), "--ready-file", str(tmp_path / "übung"))
    words = ["serve", "--config", str(config), "--ready-file", str(tmp_path / "übung"), "--print-config"]
    capsys.readouterr()
    assert lowpass.main(words) == 0
    printed.write_text(capsys.readouterr().out, encoding="utf-8")
    assert started == [], "nothing is served"
    assert made(started, "--config", str(printed)) == wanted
    assert set(tomllib.loads(printed.read_text(encoding="utf-8"))) == {
        group.lower().replace(" ", "_") for group in GROUPS
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("treads = 2", "treads: no such option"),
        ("[limits]\ngrace = 2", "limits.grace: belongs to the table starting_and_stopping"),
        ("[limit]\nmax_k = 2", "limit: no such table; there are models, "),
        ('config = "other.toml"', "config: no such option"),
        ('threads = "2"', ": threads: is '2'; give a whole number, e.g. threads = "),
        ('[workers_and_threads]\nthreads = "2"', ": workers_and_threads.threads: is '2'; give a whole number, e.g. "),
        ('[limits]\nmax-wait = "1"', ": limits.max-wait: is '1'; give a number, e.g. max_wait = "),
        ("[limits]\nmax_wait = nan", ": limits.max_wait: is nan; give a finite number, e.g. max_wait = "),
        ("[starting_and_stopping]\ngrace = -1", ": starting_and_stopping.grace: -1.0 is not in the range"),
        ("[models]\nmodel = 'a'", ": models.model: is 'a'; give a list of strings, e.g. model = [\"NAME[:LABEL]\"]"),
        ("[models]\nrepository = 1", ': models.repository: is 1; give a string, e.g. repository = "DIR|URL"'),
        ("threads = 2\n[workers_and_threads]\nthreads = 3", "workers_and_threads.threads: is set by threads already"),
        ("max_k = 2\nmax-k = 3", ": max-k: is set by max_k already; remove one of them"),
        ("threads = true", "threads: is True; give a whole number"),
        ("threads = 0", "threads: 0 is not in the range 1<=x<=64"),
        ('grace = "long"', "grace: is 'long'; give a number"),
        ("verify = 1", "verify: is 1; give true or false"),
        ('model = "student"', "model: is 'student'; give a list of strings"),
        ("model = [1]", "model: is [1]; give a list of strings"),
        ("address = 50051", "address: is 50051; give a string"),
        ('transport = "carrier pigeon"', "transport: 'carrier pigeon' is not one of"),
        ("threads = ", "is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_one_line_that_names_it(
    started: list[ServerOptions], tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    config = tmp_path / "serve.toml"
    config.write_text(text)
    assert lowpass.main(["serve", "--fake", "--config", str(config)]) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(f"lowpass: error: {config}: ")
    assert said in error
    assert started == []


def test_a_file_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(["serve", "--fake", "--config", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: cannot be read" in capsys.readouterr().err


def test_help_lists_every_option_under_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(["serve", "--help"]) == 0
    sections: dict[str, list[str]] = {}
    for line in capsys.readouterr().out.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            sections[line[:-1]] = []
        elif line.startswith("  --"):
            sections[list(sections)[-1]].append(line.split()[0])
    assert list(sections) == [*GROUPS, "Other"]
    for each in declarations():
        name = each.metadata.get("name", each.name).replace("_", "-")
        assert f"--{name}" in sections[each.metadata.get("group", "Limits")]
    assert sections["Other"] == ["--config", "--print-config"]
