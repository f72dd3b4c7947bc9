"""`lowpass query` against a server in this process."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lowpass
from serve.process.options import ServerOptions
from serve.process.server import Server


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    server = Server(ServerOptions(address="127.0.0.1:0", metrics_address="127.0.0.1:0", drain_wait=0.0))
    server.start()
    yield server.address
    server.stop()


def ask(capsys: pytest.CaptureFixture[str], target: str, *words: str) -> tuple[int, str, str]:
    code = lowpass.main(["query", "--target", target, *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_prints_a_table_with_titles(capsys: pytest.CaptureFixture[str], target: str) -> None:
    code, out, _ = ask(capsys, target, "--user", "user-3", "-k", "2")
    lines = out.splitlines()
    assert code == 0
    assert [line.split() for line in lines[:3]] == [
        ["#", "item", "score", "title"],
        ["1", "item-3", "1.0000", "Title-3"],
        ["2", "item-4", "0.9980", "Title-4"],
    ]
    assert lines[-1].startswith("fake:1 · personal · ")


def test_prints_one_json_object(capsys: pytest.CaptureFixture[str], target: str) -> None:
    words = ["--history", "item-7, unknown", "-k", "500", "--exclude", "item-8", "--json"]
    code, out, _ = ask(capsys, target, *words)
    answer: dict[str, Any] = json.loads(out)
    assert (code, answer["source"], answer["shortfall"]) == (0, "fold_in", "exhausted")
    assert (answer["unknown_item_ids"], len(answer["item_ids"])) == (["unknown"], 98)


def test_a_file_of_users_that_is_not_utf_8_is_refused(
    capsys: pytest.CaptureFixture[str], target: str, tmp_path: Path
) -> None:
    users = tmp_path / "users.txt"
    users.write_bytes(b"user-3\n\xff\n")
    code, out, error = ask(capsys, target, "--users-file", str(users))
    assert (code, out) == (2, "")
    assert f"{users}: byte 0xff is not UTF-8" in error


def test_prints_a_line_for_each_user_of_a_file(capsys: pytest.CaptureFixture[str], target: str, tmp_path: Path) -> None:
    users = tmp_path / "users.txt"
    users.write_text("user-3\n\nnobody\n" + "user-4\n" * 100)
    code, out, _ = ask(capsys, target, "--users-file", str(users), "-k", "1", "--exclude", "item-3")
    lines = [json.loads(line) for line in out.splitlines()]
    assert (code, len(lines)) == (0, 102)
    assert lines[0]["user_id"] == "user-3"
    assert lines[0]["item_ids"] in (["item-2"], ["item-4"])
    assert lines[1]["error"].startswith("NOT_FOUND: unknown user 'nobody'")
    assert [line["item_ids"] for line in lines[2:]] == [["item-4"]] * 100


def test_says_what_is_short_and_unknown(capsys: pytest.CaptureFixture[str], target: str) -> None:
    _, out, _ = ask(capsys, target, "--user", "user-1", "--allow", "item-1,item-2,zz", "--min-score", "0.9999")
    assert "fewer than 10: below min score" in out
    assert "unknown items, left out: zz" in out


def test_similar_and_info(capsys: pytest.CaptureFixture[str], target: str) -> None:
    _, out, _ = ask(capsys, target, "--similar", "item-9", "-k", "2", "--json")
    assert set(json.loads(out)["item_ids"]) == {"item-8", "item-10"}
    _, out, _ = ask(capsys, target, "--info")
    assert out.splitlines()[1].split()[:3] == ["fake:1", "*", "stable"]
    assert "max_k 1000" in out
    _, out, _ = ask(capsys, target, "--info", "--json")
    assert json.loads(out)["models"][0]["name"] == "fake"


def test_the_servers_no_is_the_users_fault(capsys: pytest.CaptureFixture[str], target: str) -> None:
    code, out, err = ask(capsys, target, "--user", "nobody")
    assert (code, out) == (2, "")
    assert err.startswith("lowpass: error: NOT_FOUND: unknown user 'nobody'")
    assert ask(capsys, target, "--user", "nobody", "--fallback")[0] == 0


def test_an_answer_that_does_not_come_in_time_is_told_with_the_remedy(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    users = tmp_path / "users.txt"
    users.write_text("user-3\n")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        for words in (["--user", "user-3"], ["--info"], ["--users-file", str(users)]):
            code, out, err = ask(capsys, target, "--timeout", "0.2", *words)
            assert (code, out) == (2, "")
            assert err == (
                f"lowpass: error: DEADLINE_EXCEEDED: no answer from {target} within 0.2 s: allow more time (timeout,"
                " --timeout), or ask for less at once\n"
            )


@pytest.mark.parametrize(
    "words", [[], ["--user", "a", "--info"], ["--similar", "item-1", "--exact"], ["--user", "a", "-k", "0"]]
)
def test_contradictions_are_usage_errors(capsys: pytest.CaptureFixture[str], target: str, words: list[str]) -> None:
    assert ask(capsys, target, *words)[0] == 2


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(["query", "--help"]) == 0
    assert "Example: lowpass query" in capsys.readouterr().out


def test_health_is_an_exit_code(capsys: pytest.CaptureFixture[str], target: str) -> None:
    assert ask(capsys, target, "--health") == (0, "serving\n", "")
    assert ask(capsys, target, "--health", "--json") == (0, '{"serving": true}\n', "")


def test_a_server_that_is_not_ready_is_not_healthy(capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(ServerOptions(address="127.0.0.1:0", metrics_address="127.0.0.1:0", drain_wait=0.0))
    server.start()
    try:
        server._set_serving(False)
        assert ask(capsys, server.address, "--health") == (1, "not serving\n", "")
    finally:
        server.stop()


def test_health_of_nobody_is_the_callers_error(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        code, out, error = ask(capsys, f"127.0.0.1:{taken.getsockname()[1]}", "--health", "--timeout", "2")
    assert (code, out) == (2, "")
    assert "UNAVAILABLE" in error
