"""The command line as a whole: exit codes, lazy loading, help."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version

import click
import pytest

import lowpass


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)


def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            subcommand = command.get_command(context, child)
            assert subcommand is not None
            yield from walk(f"{name} {child}", subcommand)


@pytest.fixture
def failing_command(monkeypatch: pytest.MonkeyPatch) -> list[Exception]:
    """Makes the command 'fail' raise what the test puts into the list."""
    raised: list[Exception] = []

    @click.command()
    def fail() -> None:
        raise raised[0]

    monkeypatch.setitem(lowpass.COMMANDS, "fail", "tests.test_lowpass:fail")
    monkeypatch.setattr(sys.modules[__name__], "fail", fail, raising=False)
    return raised


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["data", "--help"]])
def test_asking_for_help_or_version_is_success(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(arguments) == 0
    assert capsys.readouterr().out


def test_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    lowpass.main(["--version"])
    assert version("lowpass") in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nonsense"], ["train"], ["data", "nonsense"], ["evaluate", "--nonsense"]])
def test_wrong_usage_is_the_users_fault(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Error: " in captured.err
    assert "Traceback" not in captured.err


def test_an_error_with_an_exit_code_is_one_line(
    failing_command: list[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    class OursError(Exception):
        exit_code = 2

    failing_command.append(OursError("file.json: field 'a' is wrong; write it again"))
    assert lowpass.main(["fail"]) == 2
    assert capsys.readouterr().err == "lowpass: error: file.json: field 'a' is wrong; write it again\n"


def test_any_other_error_is_our_fault_and_shows_where(
    failing_command: list[Exception], capsys: pytest.CaptureFixture[str]
) -> None:
    failing_command.append(ZeroDivisionError("division by zero"))
    assert lowpass.main(["fail"]) == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert error.endswith("lowpass: internal error: ZeroDivisionError: division by zero\n")


def test_an_interrupt_is_no_success(failing_command: list[Exception], capsys: pytest.CaptureFixture[str]) -> None:
    failing_command.append(click.Abort())
    assert lowpass.main(["fail"]) == 1
    assert capsys.readouterr().err == "lowpass: interrupted\n"


def test_a_package_that_is_not_installed_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(lowpass.COMMANDS, "train", "absent_package.cli:train")
    assert lowpass.main(["train"]) == 2
    assert "'train' needs the Python package 'absent_package': pip install 'lowpass[" in capsys.readouterr().err


def test_help_lists_every_command_in_road_order_with_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    lazy = {f"{name} {child}" for name, entry in lowpass.COMMANDS.items() if isinstance(entry, dict) for child in entry}
    assert set(lowpass.SUMMARIES) == {*lowpass.COMMANDS, *lazy}
    assert "models list" in lazy
    lowpass.main(["--help"])
    listed = capsys.readouterr().out.split("Commands:")[1].splitlines()
    names = [line.split()[0] for line in listed if line.startswith("  ") and not line.startswith("   ")]
    assert names == list(lowpass.COMMANDS)


@pytest.mark.parametrize("name", list(lowpass.COMMANDS))
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    context = click.Context(lowpass.cli)
    command = lowpass.cli.get_command(context, name)
    assert command is not None
    for path, subcommand in walk(name, command):
        assert lowpass.main([*path.split(), "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert f"Usage: lowpass {path}" in text
        assert "Example:" in text, path
        assert f"lowpass {name}" in text.split("Example:")[1], path
        assert subcommand.help


def test_help_and_a_wrong_name_import_nothing_of_ours() -> None:
    code = (
        "import sys, lowpass\n"
        "assert lowpass.main(['--help']) == 0 and lowpass.main(['nonsense']) == 2\n"
        "assert lowpass.main(['models', '--help']) == 0 and lowpass.main(['models', 'nonsense']) == 2\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'torch', 'scipy', 'faiss', 'grpc', 'distill', 'export', 'jobs', 'serve'}, loaded\n"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "module", ["serve.process.server", "serve.commands.serve", "serve.client.recommender", "export.bundle"]
)
def test_serving_imports_no_torch(module: str) -> None:
    code = (
        f"import sys, {module}\n"
        "loaded = {name.split('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'torch', 'scipy', 'pyarrow', 'distill'}, loaded\n"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_the_program_runs_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "lowpass", "nonsense"], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 2
    assert "No such command 'nonsense'" in result.stderr


@pytest.mark.parametrize("before", [None, "0"])
def test_no_command_lets_onnxruntime_send_anything_home(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", before or "")
    if before is None:
        monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    assert lowpass.main(["--help"]) == 0
    assert os.environ["ORT_DISABLE_TELEMETRY"] == (before or "1")
