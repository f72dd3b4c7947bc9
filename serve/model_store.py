"""Loaded models: open → verify → build → warm, then found by name, version or label, and leased while in use."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np

from export.bundle import Bundle, Manifest, open_bundle
from export.repository import ModelRepository
from serve.backends.exact_index import ExactIndex
from serve.backends.faiss_index import FaissIndex
from serve.backends.onnx_graph import OnnxFoldIn
from serve.errors import (
    LabelNotServed,
    ModelNotServed,
    NothingToServe,
    RequestError,
    UnusableBundle,
    VersionNotServed,
)
from serve.ports import Catalogue
from serve.recommender import Recommender
from serve.types import IndexSummary, ModelSummary, Query, SimilarQuery


class ServedModel:
    """One loaded version of a model; a context manager that holds it while a request uses it.

    Args:
        summary: What is known about it.
        recommender: What answers.
        load_seconds: How long it took from opening to warm.
    """

    def __init__(self, summary: ModelSummary, recommender: Recommender, load_seconds: float = 0.0) -> None:
        self.summary = summary
        self.recommender = recommender
        self.load_seconds = load_seconds
        self._leases = 0
        self._lock = threading.Lock()

    @property
    def leases(self) -> int:
        """Requests that use it now."""
        return self._leases

    def __enter__(self) -> Self:
        with self._lock:
            self._leases += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._leases -= 1


@dataclass(frozen=True)
class ModelChoice:
    """A model to load.

    Args:
        name: In the repository.
        revision: A version or a label; None for `stable` or, without one, the newest version.
    """

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelChoice:
        """Read `NAME` or `NAME:VERSION-OR-LABEL`."""
        name, _, revision = text.partition(":")
        return cls(name, revision or None)


class ModelStore:
    """The models a server answers from. Reading needs no lock: the table is replaced, never changed.

    The first model is the default one, and the first version of a name that name's default.
    """

    def __init__(self) -> None:
        self._models: tuple[ServedModel, ...] = ()
        self._by_name: dict[str, tuple[ServedModel, ...]] = {}

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """All of them, the default first."""
        return self._models

    def add(self, model: ServedModel) -> None:
        """Serve one more."""
        self._models = (*self._models, model)
        name = model.summary.name
        self._by_name = {**self._by_name, name: (*self._by_name.get(name, ()), model)}

    def find(self, name: str = "", version: str = "", label: str = "") -> ServedModel:
        """The model a request names; enter it as a context manager to use it.

        Args:
            name: Empty for the default model.
            version: Exact version; empty for any.
            label: A label; empty for any.

        Raises:
            ModelNotServed: No such name.
            VersionNotServed: Not this version of it.
            LabelNotServed: Not this label of it.
        """
        named = self._by_name.get(name, ()) if name else self._models[:1]
        if not named:
            raise ModelNotServed(name)
        if not version and not label:
            return named[0]
        for model in self._by_name[named[0].summary.name]:
            if model.summary.version == version or label in model.summary.labels:
                return model
        raise VersionNotServed(version) if version else LabelNotServed(label)


def choose_models(repository: ModelRepository, wanted: Sequence[str]) -> list[ModelChoice]:
    """What to load.

    Args:
        repository: Where bundles are.
        wanted: `NAME` or `NAME:VERSION-OR-LABEL`; empty for every model.

    Raises:
        NothingToServe: The repository is empty.
    """
    choices = [ModelChoice.parse(text) for text in wanted or repository.models()]
    if not choices:
        raise NothingToServe(f"{repository.root}: holds no model: fill it with 'lowpass export'")
    return list(dict.fromkeys(choices))


def load_model(repository: ModelRepository, name: str, path: Path, *, verify: bool = True) -> ServedModel:
    """Open, verify, build and warm one model.

    Args:
        repository: Where bundles are.
        name: Of the model.
        path: Of its bundle there.
        verify: Also read every byte of it.

    Raises:
        BundleError: The bundle, or its place in the repository, is wrong.
        UnusableBundle: It opened but cannot answer.
    """
    started = perf_counter()
    bundle = open_bundle(path, verify=verify)
    labels = tuple(sorted(label for label, at in repository.labels(name).items() if at == path.name))
    summary = summarise(bundle.manifest, name, path.name, labels, bundle.index_path)
    recommender = build_recommender(bundle, name)
    warm_up(recommender, path)
    return ServedModel(summary, recommender, perf_counter() - started)


def build_recommender(bundle: Bundle, name: str) -> Recommender:
    """Put a bundle's parts together.

    Args:
        bundle: Opened.
        name: The model's.

    Raises:
        TruncatedIndex: The index file is not whole.
        UnusableBundle: The index does not fit the items, or a graph cannot be read.
    """
    card = bundle.manifest.index
    # A plain view of the mapped memory: indexing a np.memmap costs a Python call each time.
    items = np.asarray(bundle.item_embeddings)
    index = FaissIndex.open(bundle.index_path, card.factory, card.search)
    if (index.num_items, index.dim) != items.shape:
        raise UnusableBundle(
            f"{bundle.index_path}: {index.num_items} vectors of {index.dim} for {items.shape[0]} items of"
            f" {items.shape[1]}: export the bundle again"
        )
    names = bundle.category_names
    catalogue = Catalogue(
        user_ids=bundle.user_ids,
        item_ids=bundle.item_ids,
        user_embeddings=np.asarray(bundle.user_embeddings),
        seen_indptr=np.asarray(bundle.seen_indptr),
        seen_indices=np.asarray(bundle.seen_indices),
        popularity=np.asarray(bundle.popularity),
        item_titles=bundle.item_titles,
        category_names=tuple(names.take(range(len(names)))) if names is not None else (),
        category_indptr=bundle.category_indptr,
        category_indices=bundle.category_indices,
    )
    return Recommender(
        name,
        catalogue,
        index=index,
        exact=ExactIndex(items),
        cosine=ExactIndex.by_cosine(items),
        fold_in=OnnxFoldIn(bundle.fold_in_onnx_path),
    )


def warm_up(recommender: Recommender, path: Path) -> None:
    """Ask every kind of question once, so that pages are mapped and graphs planned before the first caller.

    Args:
        recommender: To be warmed.
        path: Its bundle, for the error.

    Raises:
        UnusableBundle: It cannot answer.
    """
    catalogue = recommender.catalogue
    users, item = len(catalogue.user_ids), catalogue.item_ids.get(0)
    rows = np.unique(np.linspace(0, users - 1, num=min(users, 64), dtype=np.int64))
    queries = [Query(catalogue.user_ids.get(int(row))) for row in rows]
    queries += [Query(history=[item]), Query(history=[item], exact=True), Query("", allow_fallback=True)]
    try:
        answers = [recommender.recommend([query]) for query in queries]
        answers += [recommender.recommend(queries), recommender.similar_items(SimilarQuery(item))]
    except Exception as error:
        raise UnusableBundle(f"{path}: cannot answer ({error}): export the bundle again") from error
    for outcome in (outcome for answer in answers for outcome in answer.outcomes):
        if isinstance(outcome, RequestError):
            raise UnusableBundle(f"{path}: cannot answer ({outcome}): export the bundle again")


def summarise(manifest: Manifest, name: str, version: str, labels: tuple[str, ...], index_path: Path) -> ModelSummary:
    """What GetInfo and the metrics say of a bundle.

    Args:
        manifest: Its manifest.
        name: Of the model in the repository.
        version: In the repository.
        labels: That name this version.
        index_path: Its index file.
    """
    card, index = manifest.model, manifest.index
    return ModelSummary(
        name=name,
        version=version,
        labels=labels,
        bundle_id=manifest.bundle_id,
        backbone=card.backbone,
        method=card.method,
        teacher=card.teacher or "",
        dim=card.dim,
        num_parameters=card.num_parameters,
        users=manifest.counts["users"],
        items=manifest.counts["items"],
        quality={key: float(value) for key, value in manifest.quality.items() if _is_number(value)},
        index=IndexSummary(
            factory=index.factory,
            search=dict(index.search),
            ann_recall=index.ann_recall,
            ann_recall_k=index.ann_recall_k,
            bytes_per_item=index.bytes_per_item,
            size_bytes=index_path.stat().st_size,
        ),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
