"""The admin service of a supervisor: a change happens in all workers, or in none.

Each worker offers the same service on a Unix socket in a folder that only this user may enter, and on another one what
changes nothing; keys and certificates are a matter of the supervisor's own addresses. A change is tried on one worker
first, so that what is wrong with it is told once and has changed nothing, then on the others. Where one of those
refuses, it is undone in the rest, as far as that goes; the error says where not. A worker that has died refuses
nothing: what was changed since the start is kept (`Changes`), and told to its successor before that serves.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from google.protobuf.message import Message
from prometheus_client import CollectorRegistry

from export.bundle import RepositoryError
from export.bundle.opening import Place, open_repository
from export.bundle.versions import PREVIOUS, STABLE
from serve.answers.call import Call
from serve.answers.errors import AddressUnavailable, NotReady
from serve.client.admin import AdminClient
from serve.client.errors import NotFoundByServer, RecommenderError
from serve.process.admin import SECONDS, admin_settings
from serve.process.changes import TELL, Changes
from serve.process.joined_versions import join_listings, name_workers
from serve.process.options import ServerOptions
from serve.process.worker_calls import (
    Ask,
    attempt,
    attempt_all,
    is_gone,
    is_silent,
    looking_at,
    refusal,
    remove_sockets,
)
from serve.rpc.admin import AdminService
from serve.rpc.pb.lowpass.v1 import admin_pb2 as pb
from serve.rpc.services import Method
from serve.telemetry.metrics import Metrics
from serve.transport.address import UNIX, read_address, split_address
from serve.transport.choice import choose_transport

LOG = logging.getLogger("lowpass.serve")
LIST_WITHIN = 5.0
"""Longest wait for what a worker holds, in seconds."""
ANSWER_WITHIN = 2.0
"""Longest wait for an answer of a worker while there is another one to ask, in seconds."""

Undo = Callable[[Mapping[int, Any]], list[str]]
"""Takes a change back in the workers that answered; returns what it could not, in words."""


class WorkersAdmin(AdminService):
    """The admin service over all workers.

    Args:
        root: Their repository.
        workers: How many there are.
        changes: None yet.

    Raises:
        AddressUnavailable: There is no place for sockets.
    """

    def __init__(self, root: Place, workers: int, changes: Changes) -> None:
        self._repository = open_repository(root)
        self._workers = workers
        self._changes = changes
        self._changing = Lock()
        self._sockets: dict[int, str] = {}
        self._numbers = itertools.count()
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="lowpass-"))
        except OSError as error:
            raise AddressUnavailable(f"no place for the sockets of workers ({error}); set TMPDIR") from error
        try:
            read_address("TMPDIR is too long for the sockets of workers:", looking_at(self.new_socket(workers)))
        except AddressUnavailable:
            self.close()
            raise

    def new_socket(self, number: int) -> str:
        """Where a worker that starts now is to offer its service, unix:PATH; another one each time."""
        return f"{UNIX}{self._folder}/{number}-{next(self._numbers)}"

    def join(self, number: int, socket: str) -> None:
        """Tell a worker that has loaded what was changed since the start, and all that changes from now on."""
        with self._changing:
            for change in self._changes.in_order():
                outcome = attempt(socket, partial(_tell, change=change), SECONDS)
                if isinstance(outcome, RecommenderError):
                    fields = {"worker": number, "change": type(change).__name__, "error": str(outcome)}
                    LOG.error("worker differs", extra={"fields": fields})
            self._sockets[number] = socket

    def leave(self, number: int, socket: str) -> None:
        """A worker is gone."""
        if self._sockets.get(number) == socket:
            del self._sockets[number]
        remove_sockets(socket)

    def close(self) -> None:
        """Remove the folder of the sockets."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def ask_one(self, method: Method, request: Message, call: Call) -> Message:
        """Let one worker answer what is no traffic; another one where that is gone or hangs.

        Raises:
            Refusal: It refuses.
            NotReady: None answers.
        """
        left = self._looked_at()
        while left:
            socket = left.pop(next(iter(left)))
            within = min(ANSWER_WITHIN, call.deadline.remaining) if left else call.deadline.remaining
            outcome = attempt(socket, lambda worker: worker.ask(method, request), within)
            if not isinstance(outcome, RecommenderError):
                answer: Message = outcome
                return answer
            if not is_silent(outcome):
                raise refusal(outcome)
        raise NotReady("no worker answers: try again soon")

    def list_models(self, _request: pb.ListModelsRequest, _call: Call) -> pb.ListModelsResponse:
        """Show every version, and where workers differ."""
        return self._listing()

    def load(self, request: pb.LoadModelRequest, call: Call) -> pb.LoadModelResponse:
        """Serve one more version."""
        model, revision = request.model, request.revision
        with self._changing:
            had = self._loaded()

            def undo(answers: Mapping[int, pb.ModelVersion]) -> list[str]:
                new = {
                    number: each.version for number, each in answers.items() if (model, each.version) not in had[number]
                }
                return self._each(new, lambda version, admin: admin.unload(model, version))

            answers = self._apply(call, lambda admin: admin.load(model, revision), undo=undo)
            version = next(iter(answers.values())).version
            self._changes.load(model, revision, version)
        (joined,) = (each for each in self._versions(model) if each.version == version)
        return pb.LoadModelResponse(version=joined)

    def unload(self, request: pb.UnloadModelRequest, call: Call) -> pb.UnloadModelResponse:
        """Serve a version no longer, wherever it is served."""
        model, version = request.model, request.version

        def ask(admin: AdminClient) -> bool | _Absent:
            try:
                return admin.unload(model, version)
            except NotFoundByServer as error:
                return _Absent(error)

        def undo(answers: Mapping[int, bool | _Absent]) -> list[str]:
            had = {number: version for number, answer in answers.items() if not isinstance(answer, _Absent)}
            return self._each(had, lambda version, admin: admin.load(model, version))

        with self._changing:
            answers = self._apply(call, ask, undo=undo).values()
            absent = [answer.error for answer in answers if isinstance(answer, _Absent)]
            if len(absent) == len(answers):
                raise refusal(absent[0])
            named = [label for label, at in self._labels(model).items() if at == version]
            self._changes.unload(model, version, named)
        return pb.UnloadModelResponse(drained=all(answers))

    def set_label(self, request: pb.SetLabelRequest, call: Call) -> pb.SetLabelResponse:
        """Move a label: one worker does, on disk and for itself, the others follow."""
        model, label, revision = request.model, request.label, request.revision
        with self._changing:
            before, had = self._labels(model), self._loaded()

            def undo(answers: Mapping[int, Any]) -> list[str]:
                return self._put_back(model, label, before, {number: had[number] for number in answers})

            self._apply(
                call,
                lambda admin: admin.set_label(model, label, revision),
                lambda admin: admin.load(model, label),
                undo=undo,
            )
            self._changes.load(model, label, self._labels(model).get(label, ""))
        return pb.SetLabelResponse(versions=self._versions(model))

    def rollback(self, request: pb.RollbackRequest, call: Call) -> pb.RollbackResponse:
        """Move `stable` back."""
        moved = self.set_label(pb.SetLabelRequest(model=request.model, label=STABLE, revision=PREVIOUS), call)
        return pb.RollbackResponse(versions=moved.versions)

    def set_split(self, request: pb.SetSplitRequest, call: Call) -> pb.SetSplitResponse:
        """Let labels answer a share."""
        with self._changing:
            before = self._changes.split_of(request.model)
            self._apply(call, partial(_tell, change=request), undo=partial(self._tell_all, before))
            self._changes.set_split(request)
        return pb.SetSplitResponse()

    def set_shadow(self, request: pb.SetShadowRequest, call: Call) -> pb.SetShadowResponse:
        """Let another model answer again."""
        with self._changing:
            before = self._changes.shadow_of(request.model)
            self._apply(call, partial(_tell, change=request), undo=partial(self._tell_all, before))
            self._changes.set_shadow(request)
        return pb.SetShadowResponse()

    def _apply(self, call: Call, first: Ask, others: Ask | None = None, *, undo: Undo) -> dict[int, Any]:
        """Ask one worker, then the others at once.

        Args:
            others: What they are asked; as the first one, unless it is given.
            undo: Takes back what was done where one of them refuses.

        Returns:
            The answers of those that are up, by number.

        Raises:
            Refusal: One refuses.
            NotReady: None is up.
        """
        sockets, answers = dict(sorted(self._sockets.items())), dict[int, Any]()
        while sockets and not answers:
            number = next(iter(sockets))
            outcome = attempt(sockets.pop(number), first, call.deadline.remaining)
            if isinstance(outcome, RecommenderError) and not is_gone(outcome):
                raise refusal(outcome)
            if not isinstance(outcome, RecommenderError):
                answers[number] = outcome
        if not answers:
            raise NotReady("no worker is up: try again soon")
        outcomes = attempt_all(sockets, others or first, call.deadline.remaining)
        answers |= {number: each for number, each in outcomes.items() if not isinstance(each, RecommenderError)}
        refused = {n: each for n, each in outcomes.items() if isinstance(each, RecommenderError) and not is_gone(each)}
        if refused:
            stuck = undo(answers)
            words = "; ".join([f"undone in {name_workers(answers)}", *stuck]) if not stuck else "; ".join(stuck)
            number, error = next(iter(refused.items()))
            raise refusal(error, f"refused by {name_workers(refused)} alone, {words}")
        return answers

    def _each(self, what: Mapping[int, str], ask: Callable[[str, AdminClient], Any]) -> list[str]:
        """Ask several workers, each for its own; returns those that refuse, in words."""
        stuck = []
        for number, own in what.items():
            outcome = attempt(self._sockets.get(number, ""), partial(ask, own), SECONDS)
            if isinstance(outcome, RecommenderError) and not is_gone(outcome):
                stuck.append(f"not undone in worker {number} ({outcome})")
        return stuck

    def _tell_all(self, change: Any, answers: Mapping[int, Any]) -> list[str]:
        return self._each(dict.fromkeys(answers, ""), lambda _, admin: _tell(admin, change))

    def _put_back(
        self, model: str, label: str, before: Mapping[str, str], had: Mapping[int, set[tuple[str, str]]]
    ) -> list[str]:
        """Put a label back where it was, on disk and in the workers that followed it.

        Args:
            before: All labels.
            had: What those workers had loaded.
        """
        if label in before:
            self._repository.replace_labels(model, before)
            return self._each(dict.fromkeys(had, label), lambda label, admin: admin.load(model, label))
        # A worker forgets a label with its version, as long as the label is there.
        version = self._labels(model).get(label, "")
        if any((model, version) in loaded for loaded in had.values()):
            return [f"the new label {label} stays at version {version}"]
        stuck = self._each(dict.fromkeys(had, version), lambda version, admin: admin.unload(model, version))
        if not stuck:
            self._repository.replace_labels(model, before)
        return stuck

    def _labels(self, model: str) -> dict[str, str]:
        """On disk; none where they cannot be read, which a worker then says better."""
        with suppress(RepositoryError):
            return self._repository.labels(model)
        return {}

    def _loaded(self) -> dict[int, set[tuple[str, str]]]:
        known = {
            number: {(each.model, each.version) for each in listed.versions if each.loaded}
            for number, listed in self._listed().items()
        }
        return {number: known.get(number, set()) for number in range(self._workers)}

    def _listed(self) -> dict[int, pb.ListModelsResponse]:
        outcomes = attempt_all(self._looked_at(), lambda worker: worker.listing(), LIST_WITHIN)
        for outcome in outcomes.values():
            if isinstance(outcome, RecommenderError) and not is_silent(outcome):
                raise refusal(outcome)
        return {n: outcome for n, outcome in sorted(outcomes.items()) if not isinstance(outcome, RecommenderError)}

    def _listing(self) -> pb.ListModelsResponse:
        listed = self._listed()
        if not listed:
            raise NotReady("no worker answers: try again soon")
        return join_listings(listed, self._workers)

    def _versions(self, model: str) -> list[pb.ModelVersion]:
        return [each for each in self._listing().versions if each.model == model]

    def _looked_at(self) -> dict[int, str]:
        return {number: looking_at(socket) for number, socket in sorted(self._sockets.copy().items())}


class _Absent:
    """A worker did not serve the version that it should unload."""

    def __init__(self, error: NotFoundByServer) -> None:
        self.error = error


def _tell(admin: AdminClient, change: Any) -> object:
    return TELL[type(change)](admin, change)


class AdminFront:
    """The admin address of a supervisor; held from the start, open to callers once its workers serve.

    Args:
        options: Its address, keys and certificates.
        service: What answers there.

    Raises:
        StartupError: The address or its keys are unusable.
    """

    def __init__(self, options: ServerOptions, service: WorkersAdmin) -> None:
        split_address("--admin-address", options.admin_address)
        _, make = choose_transport(options.transport, needs_grpcio=options.needs_grpcio)
        # Workers count the calls; what is refused here is in the log.
        self._transport = make(admin_settings(options, service, Metrics(CollectorRegistry())))
        self._address = self._transport.bind(options.admin_address)

    def open(self) -> str:
        """Let callers in; returns the address."""
        self._transport.start()
        self._transport.set_serving(True)
        return self._address

    def close(self) -> None:
        """Change nothing more."""
        self._transport.stop(0.0)
