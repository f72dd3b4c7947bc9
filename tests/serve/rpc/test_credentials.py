from __future__ import annotations

import json
from pathlib import Path

import pytest

import lowpass
from serve.answers.errors import Unauthenticated, UnusableCredentials
from serve.rpc import credentials
from serve.rpc.credentials import ApiKeys, FollowedFiles, TlsFiles, new_key, read_digests, server_credentials
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
    path.unlink()
    assert keys.authorize(bearer(fresh)) is None, "a file that is gone locks nobody out"


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


def test_followed_files_say_once_that_they_are_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "LOOK_AGAIN", 0.0)
    path = tmp_path / "file"
    path.write_text("one")
    followed = FollowedFiles([path], path.read_text)
    assert followed.current() == ("one", False)
    path.write_text("two")
    assert followed.current() == ("two", True)
    assert followed.current() == ("two", False)


def test_the_command_makes_keys_and_keeps_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys"
    made = []
    for name in ("website", "batch"):
        assert lowpass.main(["key", name, "--file", str(path), "--json"]) == 0
        made.append(json.loads(capsys.readouterr().out))
    assert list(read_digests(path)) == [each["name"] for each in made] == ["website", "batch"]
    keys = ApiKeys(path)
    assert all(keys.authorize(bearer(each["key"])) is None for each in made)
    before = path.read_text()
    for wrong in ("website", "no spaces"):
        assert lowpass.main(["key", wrong, "--file", str(path)]) == 2
    assert lowpass.main(["key", "a", "--file", str(tmp_path / "nowhere" / "keys")]) == 2
    assert path.read_text() == before
