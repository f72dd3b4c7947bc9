from __future__ import annotations

import pytest

from tests.distill.report.invented import Gallery, build_gallery


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return build_gallery(tmp_path_factory.mktemp("gallery"))
