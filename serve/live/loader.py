"""From a bundle on disk to a model that answers: open → verify → build → warm."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from export.bundle import Bundle, ExactIndex, Manifest, open_bundle
from export.bundle.repository import ModelRepository, shard_folders
from export.bundle.versions import Repository
from serve.answers.errors import NothingToServe, RequestError, UnusableBundle
from serve.answers.fold_in import OnnxFoldIn
from serve.answers.indexes.engine_index import EngineIndex
from serve.answers.indexes.faiss_index import FaissIndex
from serve.answers.ports import CandidateIndex, Catalogue, RemoteIndex
from serve.answers.recommender import MAX_OVER_FETCH, AnswerTable, Recommender
from serve.answers.types import IndexSummary, ModelSummary, Query, SimilarQuery
from serve.live.background import give_way, interrupted_often
from serve.live.comparison import compare_fold_in, compare_index
from serve.live.engines import Engines
from serve.live.store import ServedModel
from serve.telemetry.metrics import Metrics

LOG = logging.getLogger("lowpass.serve")

LOAD_SECONDS, SLOWEST_BYTES_A_SECOND, LONGEST_LOAD_SECONDS = 300.0, 1e7, 14_400.0
"""How long a load may take: so long, and what a slow disk needs to read the bundle, and never longer than the last."""
STOP_SECONDS = 10.0
"""A load under way when the server stops is waited for no longer."""


@dataclass(frozen=True)
class ModelChoice:
    """A model to load.

    Args:
        revision: A version or a label; None for `stable` or, without one, the newest version.
    """

    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> ModelChoice:
        """Read `NAME` or `NAME:VERSION-OR-LABEL`."""
        name, _, revision = text.partition(":")
        return cls(name, revision or None)


def choose_models(repository: Repository, wanted: Sequence[str]) -> list[ModelChoice]:
    """What to load.

    Args:
        wanted: `NAME` or `NAME:VERSION-OR-LABEL`; empty for every model.

    Raises:
        NothingToServe: The repository is empty.
    """
    choices = [ModelChoice.parse(text) for text in wanted or repository.models()]
    if not choices:
        inside = shard_folders(repository.root) if isinstance(repository, ModelRepository) else []
        remedy = f"but shards of users: give one, e.g. {inside[0]}" if inside else "fill it with 'lowpass export'"
        raise NothingToServe(f"{repository.place}: holds no model: {remedy}")
    return list(dict.fromkeys(choices))


def load_model(
    name: str,
    path: Path,
    *,
    verify: bool = True,
    copy_up_to: int = 0,
    recorded: Sequence[Query] = (),
    engines: Engines | None = None,
) -> ServedModel:
    """Open, verify, build and warm one model.

    Args:
        verify: Also read every byte of it.
        copy_up_to: A bundle of at most so many bytes is read into memory; a larger one is mapped.
        recorded: Questions that callers really asked, to warm it with.
        engines: That hold items of models; None for none.

    Raises:
        BundleError: The bundle, or its place in the repository, is wrong; or its engine does not hold it.
        UnusableBundle: It opened but cannot answer.
    """
    started = perf_counter()
    bundle = open_bundle(path, verify=verify, copy_up_to=copy_up_to)
    index = choose_index(bundle, name, engines)
    summary = summarise(bundle.manifest, name, path.name, bundle.index_path)
    if isinstance(index, EngineIndex):
        summary = replace(summary, index=summarise_engine(index))
    recommender = build_recommender(bundle, name, index)
    warm_up(recommender, path, recorded)
    if isinstance(index, EngineIndex):
        index.go_live()
    return ServedModel(summary, recommender, perf_counter() - started)


class BackgroundLoader:
    """Loads on a thread of lower priority, and remembers what went wrong.

    Args:
        metrics: Where loads are counted.
        verify: Read every byte of a bundle before serving it.
        copy_up_to: A bundle of at most so many bytes is read into memory; a larger one is mapped.
        engines: That hold items of models; None for none.
        prepare_thread: Called once in the loading thread.

    Attributes:
        errors: (model, version) → why its latest load failed.
    """

    def __init__(
        self,
        metrics: Metrics,
        *,
        verify: bool = True,
        copy_up_to: int = 0,
        engines: Engines | None = None,
        prepare_thread: Callable[[], None] | None = None,
    ) -> None:
        self.errors: dict[tuple[str, str], str] = {}
        self._metrics = metrics
        self._options: dict[str, Any] = {"verify": verify, "copy_up_to": copy_up_to, "engines": engines}
        self._prepare_thread = prepare_thread
        self._alone = threading.Lock()
        self._running: Future[ServedModel] | None = None

    def load(
        self, name: str, path: Path, recorded: Sequence[Query] = (), *, beside_requests: bool = True
    ) -> ServedModel:
        """Load a model and wait for it; see `load_model`.

        Args:
            beside_requests: Whether there are any to give way to; at the start of a server nobody is kept waiting.

        Raises:
            BundleError: The bundle is wrong.
            UnusableBundle: It opened but cannot answer, or takes longer than `allowed_seconds`.
        """
        try:
            model = self._load_beside(name, path, recorded, beside_requests)
        except Exception as error:
            self.failed(name, path.name, error)
            raise
        self.errors.pop((name, path.name), None)
        self._metrics.model_loaded(model.summary, model.load_seconds)
        details = {"bundle_id": model.summary.bundle_id, "load_seconds": round(model.load_seconds, 3)}
        LOG.info("model loaded", extra={"fields": {"model": name, "version": path.name, **details}})
        return model

    def failed(self, name: str, version: str, error: Exception) -> None:
        """Take note of why a version is not loaded."""
        self.errors[name, version] = str(error)
        self._metrics.load_failed(name)
        LOG.error("load failed", extra={"fields": {"model": name, "version": version, "error": str(error)}})

    def stop(self) -> None:
        """Wait for a load under way, but not for ever."""
        if self._running is not None:
            wait([self._running], timeout=STOP_SECONDS)

    def _load_beside(self, name: str, path: Path, recorded: Sequence[Query], beside_requests: bool) -> ServedModel:
        """Load on a thread of its own: one that hangs can only be left behind, and must not keep the process alive."""
        with self._alone:
            running: Future[ServedModel] = Future()
            self._running = running
            target, arguments = self._load, (running, name, path, recorded, beside_requests)
            threading.Thread(target=target, args=arguments, name="lowpass-load", daemon=True).start()
            seconds = allowed_seconds(path)
            try:
                return running.result(timeout=seconds)
            except TimeoutError as error:
                if running.done():
                    raise
                raise UnusableBundle(
                    f"{path}: not loaded after {seconds:.0f} s, given up; look at its disk, or export the bundle again"
                ) from error

    def _load(
        self, loaded: Future[ServedModel], name: str, path: Path, recorded: Sequence[Query], beside_requests: bool
    ) -> None:
        try:
            if beside_requests:
                give_way()
            if self._prepare_thread is not None:
                self._prepare_thread()
            with interrupted_often():
                loaded.set_result(load_model(name, path, recorded=recorded, **self._options))
        except BaseException as error:  # whatever it is, whoever waits is told
            loaded.set_exception(error)


def allowed_seconds(path: Path) -> float:
    """How long a bundle may take to load, by the bytes of its directory."""
    try:
        size = sum(file.lstat().st_size for file in path.iterdir())
    except OSError:
        size = 0
    return min(LOAD_SECONDS + size / SLOWEST_BYTES_A_SECOND, LONGEST_LOAD_SECONDS)


def choose_index(bundle: Bundle, name: str, engines: Engines | None = None) -> FaissIndex | EngineIndex:
    """What is asked for candidates: the bundle's own index, or the engine that holds the items of this model.

    Raises:
        TruncatedIndex: The index file is not whole.
        EngineError: The engine does not answer, or does not hold this version.
        UnusableBundle: The index is not that of the embeddings.
    """
    card, items = bundle.manifest.index, np.asarray(bundle.item_embeddings)
    users = np.asarray(bundle.user_embeddings[_sample(len(bundle.user_ids))], dtype=np.float32)
    if engines is not None and (remote := engines.index_of(bundle, name, users)) is not None:
        return remote
    index = FaissIndex.open(bundle.index_path, card.search, items, in_memory=bundle.in_memory)
    compare_index(index, items, users, bundle.index_path, ann_recall=card.ann_recall, k=card.ann_recall_k)
    return index


def build_recommender(bundle: Bundle, name: str, index: CandidateIndex) -> Recommender:
    """Put a bundle's parts together.

    Raises:
        UnusableBundle: The fold-in is not that of the embeddings, or a graph cannot be read.
    """
    # A plain view of the mapped memory: indexing a np.memmap costs a Python call each time.
    items = np.asarray(bundle.item_embeddings)
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
        user_shard=bundle.manifest.user_shard,
    )
    return Recommender(
        name,
        catalogue,
        index=index,
        exact=ExactIndex(items),
        cosine=ExactIndex.by_cosine(items),
        fold_in=_fold_in(bundle),
        answers=_answer_table(bundle),
        max_over_fetch=index.most if isinstance(index, RemoteIndex) else MAX_OVER_FETCH,
    )


def _sample(users: int) -> npt.NDArray[np.int64]:
    """Rows of at most 64 users, spread over all."""
    return np.unique(np.linspace(0, users - 1, num=min(users, 64), dtype=np.int64))


def _fold_in(bundle: Bundle) -> OnnxFoldIn:
    step = bundle.manifest.fold_in.get("recent_step", 1.0)
    if not isinstance(step, int | float) or not 0 <= step < math.inf:
        raise UnusableBundle(f"{bundle.path}: fold_in.recent_step is {step!r}, not a number from 0 on: export again")
    if not bundle.in_memory:
        weights = {}
    elif bundle.fold_in_embeddings is None:
        weights = {"item_embeddings": np.asarray(bundle.item_embeddings)}
    else:
        weights = {"fold_in_embeddings": np.asarray(bundle.fold_in_embeddings)}
    fold_in = OnnxFoldIn(bundle.fold_in_onnx_path, weights, recent_step=float(step))
    items, dim = bundle.item_embeddings.shape
    compare_fold_in(fold_in, bundle.fold_in_embeddings, items, dim, bundle.fold_in_onnx_path)
    return fold_in


def _answer_table(bundle: Bundle) -> AnswerTable | None:
    if bundle.answer_rows is None or bundle.answer_scores is None:
        return None
    return AnswerTable(np.asarray(bundle.answer_rows), np.asarray(bundle.answer_scores), len(bundle.item_ids))


def warm_up(recommender: Recommender, path: Path, recorded: Sequence[Query] = ()) -> None:
    """Ask every kind of question once, so that pages are mapped and graphs planned before the first caller.

    Args:
        recommender: To be warmed.
        path: Its bundle, for the error.
        recorded: Asked too; one of them may be refused, since another version may not know its user.

    Raises:
        UnusableBundle: It cannot answer.
    """
    catalogue = recommender.catalogue
    users, item = len(catalogue.user_ids), catalogue.item_ids.get(0)
    ids = [catalogue.user_ids.get(int(row)) for row in _sample(users)]
    # With an answer table the plain question does not reach the index.
    queries = [Query(user_id, include_seen=include_seen) for user_id in ids for include_seen in (False, True)]
    queries += [Query(history=[item]), Query(history=[item], exact=True), Query(history=[""], allow_fallback=True)]
    try:
        answers = [recommender.recommend([query]) for query in queries]
        answers += [recommender.recommend(queries), recommender.similar_items(SimilarQuery(item))]
        for query in recorded:
            recommender.recommend([query])
    except Exception as error:
        raise UnusableBundle(f"{path}: cannot answer ({error}): export the bundle again") from error
    for outcome in (outcome for answer in answers for outcome in answer.outcomes):
        if isinstance(outcome, RequestError):
            raise UnusableBundle(f"{path}: cannot answer ({outcome}): export the bundle again")


def summarise(manifest: Manifest, name: str, version: str, index_path: Path) -> ModelSummary:
    """What GetInfo and the metrics say of a bundle.

    Args:
        name: Of the model in the repository.
    """
    card, index = manifest.model, manifest.index
    return ModelSummary(
        name=name,
        version=version,
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
        size_bytes=manifest.total_bytes,
    )


def summarise_engine(index: EngineIndex) -> IndexSummary:
    """What they say of the items in an engine."""
    card = index.card
    return IndexSummary(
        factory=card.kind,
        search=dict(card.search),
        ann_recall=card.recall,
        ann_recall_k=card.recall_k,
        bytes_per_item=card.bytes_per_item,
        size_bytes=round(card.bytes_per_item * card.items),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
