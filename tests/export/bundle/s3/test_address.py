from __future__ import annotations

from pathlib import Path

import pytest

from export.bundle import ExportError, RepositoryError
from export.bundle.opening import open_publisher, parse_place
from export.bundle.s3.address import S3Address, is_s3


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [("s3://models", "models", ""), ("s3://my.models/", "my.models", ""), ("s3://models/a/b=1/", "models", "a/b=1")],
)
def test_reads_bucket_and_prefix(text: str, bucket: str, prefix: str) -> None:
    address = S3Address.parse(text)
    assert (address.bucket, address.prefix) == (bucket, prefix)
    assert str(address) == text.rstrip("/")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3://", "bucket ''"),
        ("s3://UPPER/x", "bucket 'UPPER'"),
        ("s3://models/../x", "'..' of the prefix"),
        ("s3://models//x", "'' of the prefix"),
        ("s3://models/a b", "'a b' of the prefix"),
    ],
)
def test_what_is_no_address_is_named_with_the_form(text: str, said: str) -> None:
    with pytest.raises(ExportError, match=r"give s3://BUCKET/PREFIX") as caught:
        S3Address.parse(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["s3://AKIA123:hush@models/x", "s3://models/x?secret=hush", "s3://models#hush"])
def test_credentials_in_it_are_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ExportError, match="credentials come from AWS_ENDPOINT_URL") as caught:
        S3Address.parse(text)
    assert "hush" not in str(caught.value)
    assert "AKIA123" not in str(caught.value)


def test_a_place_is_a_directory_or_an_address(tmp_path: Path) -> None:
    assert parse_place(str(tmp_path)) == tmp_path
    assert parse_place("S3://models/x/") == "s3://models/x"
    assert is_s3("s3://models")
    assert not is_s3(Path("s3:/models"))
    (tmp_path / "file").touch()
    with pytest.raises(RepositoryError, match="is a file"):
        parse_place(str(tmp_path / "file"))


def test_users_in_shards_are_published_into_a_directory() -> None:
    with pytest.raises(ExportError, match=r"--user-shards: .*shard-K-of-N, each version's manifest.json last"):
        open_publisher("s3://models/x", 4)
