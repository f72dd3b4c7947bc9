from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import faiss
import numpy as np
import pytest

from export.bundle import ChecksumMismatch, TruncatedIndex, UnknownModel
from export.bundle.repository import ModelRepository
from serve.answers.errors import (
    LabelNotServed,
    ModelNotServed,
    NothingToServe,
    VersionNotServed,
)
from serve.answers.fake import fake_model
from serve.answers.types import Query, Recommendation
from serve.live.loader import ModelChoice, choose_models, load_model
from serve.live.store import ModelStore, ServedModel
from tests.serve.repositories import DIM, publish


def store() -> ModelStore:
    made = ModelStore()
    for name, version in (("a", "2"), ("a", "1"), ("b", "1")):
        made.add(ServedModel(*fake_model(name, version)))
    made.point("a", {"stable": "2", "canary": "1", "gone": "7"})
    return made


def which(model: ServedModel) -> tuple[str, str]:
    return model.summary.name, model.summary.version


def test_finds_by_name_version_and_label() -> None:
    models = store()
    assert which(models.find()) == ("a", "2")
    assert which(models.find("b")) == ("b", "1")
    assert which(models.find("a", version="1")) == ("a", "1")
    assert which(models.find("", version="1")) == ("a", "1")
    assert which(models.find("a", label="stable")) == ("a", "2")


def test_names_what_is_not_served() -> None:
    models = store()
    with pytest.raises(ModelNotServed, match="'c'"):
        models.find("c")
    with pytest.raises(VersionNotServed, match="'9'"):
        models.find("a", version="9")
    with pytest.raises(LabelNotServed, match="'gone'"):
        models.find("a", label="gone")
    with pytest.raises(ModelNotServed):
        ModelStore().find()


def test_counts_the_requests_that_use_a_model() -> None:
    model = store().find()
    with model, model:
        assert model.leases == 2

    def use() -> None:
        for _ in range(500):
            with model:
                pass

    with ThreadPoolExecutor(8) as pool:
        for _ in range(8):
            pool.submit(use)
    assert model.leases == 0


def test_reads_a_choice() -> None:
    assert ModelChoice.parse("student") == ModelChoice("student", None)
    assert ModelChoice.parse("student:canary") == ModelChoice("student", "canary")


def test_chooses_every_model_unless_told(repository: ModelRepository, tmp_path: Path) -> None:
    assert [choice.name for choice in choose_models(repository, [])] == ["student", "teacher"]
    assert choose_models(repository, ["teacher", "teacher"]) == [ModelChoice("teacher")]
    with pytest.raises(NothingToServe, match="lowpass export"):
        choose_models(ModelRepository(tmp_path), [])
    with pytest.raises(UnknownModel):
        repository.resolve("nobody")


@pytest.mark.parametrize(("name", "version"), [("student", "1"), ("student", "2"), ("teacher", "1")])
def test_a_loaded_model_answers_and_describes_itself(repository: ModelRepository, name: str, version: str) -> None:
    path = repository.resolve(name, version)
    model = load_model(name, path)
    queries = [Query("u1", k=20), Query("u1", k=20, exact=True), Query(history=["i1"], k=3, include_titles=True)]
    near, exact, folded = model.recommender.recommend(queries).outcomes
    assert isinstance(near, Recommendation)
    assert isinstance(exact, Recommendation)
    assert isinstance(folded, Recommendation)
    assert len(set(near.item_ids) & set(exact.item_ids)) >= 18
    assert folded.titles[0].startswith("Title of")
    assert (model.summary.name, model.summary.version, model.summary.dim) == (name, version, DIM)
    assert model.summary.quality == {"recall@20": 0.5, "ndcg@20": 0.25, "kept_recall": 0.75}
    assert model.summary.index.size_bytes == (path / "index.faiss").stat().st_size
    assert model.recommender.catalogue.category_names == ("even", "odd", "prime")
    assert model.load_seconds > 0


def test_damage_is_found_before_serving(tmp_path: Path) -> None:
    path = publish(tmp_path, "student")
    data = bytearray((path / "item_embeddings.npy").read_bytes())
    data[-1] ^= 1
    (path / "item_embeddings.npy").write_bytes(data)
    with pytest.raises(ChecksumMismatch):
        load_model("student", path)


def test_an_index_of_other_items_is_unusable(tmp_path: Path) -> None:
    path = publish(tmp_path, "student", factory="Flat")
    whole = (path / "index.faiss").stat().st_size
    index = faiss.IndexFlatIP(2 * DIM)
    index.add(np.zeros((200, 2 * DIM), np.float32))
    faiss.write_index(index, str(path / "index.faiss"))
    assert (path / "index.faiss").stat().st_size == whole
    with pytest.raises(TruncatedIndex, match="200 items of dimension 16, manifest says 400 of 8"):
        load_model("student", path, verify=False)
