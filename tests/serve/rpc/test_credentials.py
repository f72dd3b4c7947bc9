from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import lowpass
from serve.answers.errors import Unauthenticated, UnusableCredentials
from serve.rpc import credentials
from serve.rpc.credentials import (
    ApiKeys,
    FollowedFiles,
    TlsFiles,
    certificate_ends,
    new_key,
    read_digests,
    server_context,
    server_credentials,
)
from tests.kits.authority import Authority


def bearer(key: str) -> list[tuple[str, str | bytes]]:
    return [("user-agent", "test"), ("authorization", f"Bearer {key}")]


def test_a_key_opens_and_its_digest_does_not(tmp_path: Path) -> None:
    key, line = new_key("website")
    path = tmp_path / "keys"
    path.write_text(f"# who may ask\n\n{line}  # since spring\n")
    keys = ApiKeys(path)
    assert keys.authorize(bearer(key)) is None
    assert key not in path.read_text()
    for wrong in ("", key + "x", key[:-1], line, line.partition(":")[2]):
        assert isinstance(keys.authorize(bearer(wrong)), Unauthenticated)
    assert isinstance(keys.authorize([("authorization", key)]), Unauthenticated)
    assert isinstance(keys.authorize([]), Unauthenticated)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_may_be_written_in_any_case(tmp_path: Path, scheme: str) -> None:
    key, line = new_key("website")
    (tmp_path / "keys").write_text(line)
    keys = ApiKeys(tmp_path / "keys")
    assert keys.authorize([("authorization", f"{scheme} {key}")]) is None
    for wrong in (f"{scheme}{key}", f"Basic {key}", f"{scheme} {key.swapcase()}", scheme):
        assert isinstance(keys.authorize([("authorization", wrong)]), Unauthenticated)


def test_a_file_that_changes_is_read_again_and_a_bad_one_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "LOOK_AGAIN", 0.0)
    (old, old_line), (fresh, fresh_line) = new_key("old"), new_key("fresh")
    path = tmp_path / "keys"
    path.write_text(old_line)
    keys = ApiKeys(path)
    path.write_text("nonsense")
    assert keys.authorize(bearer(old)) is None
    path.write_text(fresh_line + "\n")
    assert keys.authorize(bearer(fresh)) is None
    assert keys.authorize(bearer(old)) is not None


@pytest.mark.parametrize("how", ["emptied", "without a key", "deleted", "link without a file"])
def test_a_file_without_keys_lets_nobody_in_and_one_with_keys_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(credentials, "LOOK_AGAIN", 0.0)
    key, line = new_key("website")
    path = tmp_path / "keys"
    path.write_text(line)
    keys = ApiKeys(path)
    assert keys.authorize(bearer(key)) is None
    if how == "deleted":
        path.unlink()
    elif how == "link without a file":
        path.unlink()
        path.symlink_to(tmp_path / "nowhere")
    else:
        path.write_text("" if how == "emptied" else "# nobody for now\n")
    assert isinstance(keys.authorize(bearer(key)), Unauthenticated)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warnings == ["no API key is left: nobody may call"]
    path.unlink(missing_ok=True)
    path.write_text(line)
    assert keys.authorize(bearer(key)) is None


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"website secret"])
def test_a_file_that_cannot_be_read_leaves_the_keys_in_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setattr(credentials, "LOOK_AGAIN", 0.0)
    (key, line), (other, other_line) = new_key("website"), new_key("other")
    path = tmp_path / "keys"
    path.write_text(line)
    keys = ApiKeys(path)
    path.unlink()
    if content is None:
        path.mkdir()  # unreadable for whoever is root, too
    else:
        path.write_bytes(content)
    assert keys.authorize(bearer(key)) is None
    (tmp_path / "new").write_text(other_line)
    if content is None:
        path.rmdir()
    (tmp_path / "new").replace(path)
    assert keys.authorize(bearer(other)) is None
    assert keys.authorize(bearer(key)) is not None


def test_a_change_within_one_tick_of_the_clock_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LOOK_AGAIN", 0.0)
    path = tmp_path / "file"
    path.write_text("first")
    followed = FollowedFiles([path], path.read_text)
    then = path.stat().st_mtime_ns
    path.write_text("and another")
    os.utime(path, ns=(then, then))
    assert followed.current() == ("and another", True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        ("website secret", "keys:1: must be NAME sha256:DIGEST"),
        ("\nwebsite sha256:12", "keys:2: must be"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(UnusableCredentials, match=words):
        ApiKeys(path)
    with pytest.raises(UnusableCredentials, match="unreadable"):
        ApiKeys(tmp_path / "nowhere")


def test_certificates_that_do_not_fit_are_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = Authority(tmp_path / "a").server, Authority(tmp_path / "b").server
    with pytest.raises(UnusableCredentials, match="does not fit"):
        server_credentials(TlsFiles(first.certificate, second.key))
    with pytest.raises(UnusableCredentials, match="holds no private key"):
        server_credentials(TlsFiles(first.certificate, first.certificate))
    with pytest.raises(UnusableCredentials, match="unreadable"):
        server_credentials(TlsFiles(tmp_path / "nowhere", first.key))


def test_a_certificate_out_of_its_time_is_refused_at_the_start_and_never_taken_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, now, day = Authority(tmp_path), datetime.now(UTC), timedelta(days=1)
    with_tls = authority.mutual
    authority.date(now - 9 * day, now - day)
    for make in (server_credentials, server_context):
        with pytest.raises(UnusableCredentials, match=r"server\.pem: the certificate has expired; put a new one there"):
            make(with_tls)
    authority.date(now + day, now + 9 * day)
    with pytest.raises(UnusableCredentials, match="not valid yet"):
        server_context(with_tls)
    authority.date(now - day, now + day)
    server_credentials(with_tls)
    monkeypatch.setattr(credentials, "LOOK_AGAIN", 0.0)
    followed = FollowedFiles(with_tls.paths, lambda: server_context(with_tls))
    in_force, _ = followed.current()
    authority.date(now - 9 * day, now - day)
    assert followed.current() == (in_force, False)


def test_when_certificates_end_is_told_and_follows_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LOOK_AGAIN", 0.0)
    authority = Authority(tmp_path)
    today = datetime.now(UTC).replace(microsecond=0)
    authority.date(today - timedelta(days=1), today + timedelta(days=9))
    ends, alone = certificate_ends(authority.mutual), certificate_ends(authority.server)
    assert set(alone()) == {"server"}
    assert alone()["server"] == (today + timedelta(days=9)).timestamp()
    assert ends()["client_authority"] > ends()["server"]
    authority.date(today - timedelta(days=1), today + timedelta(days=20))
    assert ends()["server"] == (today + timedelta(days=20)).timestamp()
    authority.date(today - timedelta(days=9), today - timedelta(days=1))  # never in force
    assert ends()["server"] == (today + timedelta(days=20)).timestamp()


def test_followed_files_say_once_that_they_are_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LOOK_AGAIN", 0.0)
    path = tmp_path / "file"
    path.write_text("one")
    followed = FollowedFiles([path], path.read_text)
    assert followed.current() == ("one", False)
    path.write_text("two")
    assert followed.current() == ("two", True)
    assert followed.current() == ("two", False)


def make(*words: str) -> int:
    return lowpass.main(["key", *words])


def test_the_command_makes_keys_and_keeps_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys"
    made = []
    for name in ("website", "batch"):
        assert make(name, "--file", str(path), "--json") == 0
        made.append(json.loads(capsys.readouterr().out))
    assert list(read_digests(path)) == [each["name"] for each in made] == ["website", "batch"]
    keys = ApiKeys(path)
    assert all(keys.authorize(bearer(each["key"])) is None for each in made)
    before = path.read_text()
    for wrong in ("website", "no spaces", "", "n" * 65):
        assert make(wrong, "--file", str(path)) == 2
    assert make("a", "--file", str(tmp_path / "nowhere" / "keys")) == 2
    assert path.read_text() == before
    assert [each.name for each in tmp_path.iterdir()] == ["keys"], "no draft is left"


@pytest.mark.parametrize("before", ["", "# who may ask", "\n# who may ask\n"])
def test_a_file_without_keys_takes_one(tmp_path: Path, before: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys"
    path.write_text(before)
    assert make("website", "--file", str(path)) == 0
    assert ApiKeys(path).authorize(bearer(capsys.readouterr().out.strip())) is None
    assert path.read_text().startswith(before)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644])
def test_a_key_file_keeps_its_mode_and_owner_and_a_new_one_is_private(tmp_path: Path, mode: int) -> None:
    path, link, new = tmp_path / "keys", tmp_path / "link", tmp_path / "new"
    path.write_text("# keys\n")
    path.chmod(mode)
    if os.getuid() == 0:
        os.chown(path, 65534, 65534)
    link.symlink_to(path)
    owner = path.stat().st_uid
    for file in (path, link, new):
        assert make("website" if file is not link else "batch", "--file", str(file)) == 0
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert path.stat().st_uid == owner
    assert link.is_symlink()
    assert list(read_digests(path)) == ["website", "batch"]
    assert stat.S_IMODE(new.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"\xff", b"website secret\n"])
def test_a_key_file_that_is_none_is_named_and_left(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys"
    path.write_bytes(content)
    assert make("website", "--file", str(path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"lowpass: error: {path}")
    assert path.read_bytes() == content


def test_many_keys_made_at_once_are_all_kept(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    code = "import sys; from pathlib import Path; from serve.rpc.credentials import add_key; sys.stdin.readline()\n"
    code += "for number in range(5): add_key(Path(sys.argv[1]), f'{sys.argv[2]}.{number}')"
    makers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(number)], stdin=subprocess.PIPE, text=True)
        for number in range(6)
    ]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("go\n")
        maker.stdin.flush()
    for maker in makers:
        maker.communicate()
        assert maker.returncode == 0
    assert sorted(read_digests(path)) == [f"{maker}.{number}" for maker in range(6) for number in range(5)]
