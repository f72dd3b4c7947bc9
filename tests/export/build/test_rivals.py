from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from export.build.quality import measure_bundle
from export.build.rivals import build_rivals
from export.build.verify import verify_bundle
from export.bundle import Bundle, ExportError, UnknownModel, open_bundle
from export.bundle.repository import ModelRepository


@pytest.fixture(scope="module")
def repository(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    root = tmp_path_factory.mktemp("rivals") / "models"
    shutil.copytree(workplace / "models" / "teacher", root / "teacher")
    repository = ModelRepository(root)
    build_rivals(repository, "teacher", 4)
    return repository


def opened(repository: ModelRepository, model: str) -> Bundle:
    return open_bundle(repository.resolve(model))


def test_both_are_ordinary_bundles_that_verify(repository: ModelRepository) -> None:
    assert repository.models() == ["teacher", "teacher-pq16", "teacher-svd4"]
    for model in repository.models():
        assert verify_bundle(repository.resolve(model))["files"] > 15


def test_bytes_per_item_are_the_students(repository: ModelRepository) -> None:
    assert opened(repository, "teacher-svd4").manifest.index.bytes_per_item == 16
    quantized = opened(repository, "teacher-pq16").manifest
    # 90 items need 6 bits a sub-code: 12 bytes instead of 16.
    assert quantized.index.bytes_per_item == 12
    assert "decoded" in quantized.quality["note"]


@pytest.mark.parametrize("model", ["teacher-svd4", "teacher-pq16"])
def test_quality_can_be_measured_again_from_the_bundle(repository: ModelRepository, model: str) -> None:
    bundle = opened(repository, model)
    quality = bundle.manifest.quality
    for name, value in measure_bundle(bundle).items():
        assert quality[name] == pytest.approx(value)
    teacher = opened(repository, "teacher").manifest.quality
    assert quality["teacher_recall@20"] == teacher["recall@20"]
    assert quality["kept_recall"] == pytest.approx(quality["recall@20"] / teacher["recall@20"])
    assert quality["convention"] == teacher["convention"]


def test_what_is_not_embeddings_is_the_teachers(repository: ModelRepository) -> None:
    teacher, rival = opened(repository, "teacher"), opened(repository, "teacher-svd4")
    same = [
        name
        for name in teacher.manifest.files
        if name.startswith(("user_ids", "item_ids", "item_titles", "item_categories", "seen", "heldout", "popul"))
    ]
    assert len(same) > 12
    assert all(teacher.manifest.files[name] == rival.manifest.files[name] for name in same)


def test_the_svd_ranks_like_the_best_approximation(repository: ModelRepository) -> None:
    teacher, rival = opened(repository, "teacher"), opened(repository, "teacher-svd4")
    left, singular, right = np.linalg.svd(teacher.user_embeddings @ teacher.item_embeddings.T)
    best = (left[:, :4] * singular[:4]) @ right[:4]
    np.testing.assert_allclose(rival.user_embeddings @ rival.item_embeddings.T, best, atol=1e-4)


@pytest.mark.parametrize("dim", [0, 16])
def test_a_dim_that_is_not_below_the_teachers(repository: ModelRepository, dim: int) -> None:
    with pytest.raises(ExportError, match="dim"):
        build_rivals(repository, "teacher", dim)


def test_an_unknown_teacher(repository: ModelRepository) -> None:
    with pytest.raises(UnknownModel):
        build_rivals(repository, "absent", 4)
