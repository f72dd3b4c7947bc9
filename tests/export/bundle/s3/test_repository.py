from __future__ import annotations

from pathlib import Path

import pytest

from export.bundle import Repository, open_repository
from export.bundle.s3.address import S3Address
from export.bundle.s3.objects import Objects
from tests.kits.repository_kit import RepositoryKit


def spoil(place: str, model: str, version: str, file: str) -> None:
    """Change the last byte of an object."""
    objects, key = Objects(S3Address.parse(place)), f"{model}/{version}/{file}"
    found = objects.read(key, 1 << 30)
    assert found is not None
    assert objects.replace(key, found.data[:-1] + bytes([found.data[-1] ^ 1]), found.etag)


class TestS3Repository(RepositoryKit):
    @pytest.fixture
    def repository(self, bucket: str, tmp_path: Path) -> Repository:
        # The mirror of a reader that did not publish what it reads would do as well; see test_mirror.py.
        return open_repository(bucket, mirror=tmp_path / "mirror")

    def damage(self, repository: Repository, model: str, version: str, file: str) -> None:
        spoil(repository.place, model, version, file)
        local = repository.last_good
        assert local is not None
        (local.fetch(model, version) / file).unlink()  # what is mirrored is good still
