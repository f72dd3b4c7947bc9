"""The methods that change what is served: convert, ask the manager, convert back. No transport."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from google.protobuf.message import Message

from serve.answers.call import Call
from serve.answers.errors import FieldViolation, InvalidRequest
from serve.live.shadow import Shadow, ShadowRule
from serve.live.store import VersionState
from serve.rpc.pb.lowpass.v1 import admin_pb2 as pb
from serve.rpc.services import Method

if TYPE_CHECKING:  # It brings FAISS, which a supervisor of workers never asks anything.
    from serve.live.manager import ModelManager

ADMIN_SERVICE: str = pb.DESCRIPTOR.services_by_name["ModelAdminService"].full_name
LOOKS = "ListModels"
"""The one method of the service that changes nothing."""


class AdminService(ABC):
    """The methods of the service, whoever changes the models."""

    def methods(self) -> tuple[Method, ...]:
        """All of them, for a transport to register."""
        return (
            Method("ListModels", pb.ListModelsRequest, pb.ListModelsResponse, self.list_models),
            Method("LoadModel", pb.LoadModelRequest, pb.LoadModelResponse, self.load),
            Method("UnloadModel", pb.UnloadModelRequest, pb.UnloadModelResponse, self.unload),
            Method("SetLabel", pb.SetLabelRequest, pb.SetLabelResponse, self.set_label),
            Method("Rollback", pb.RollbackRequest, pb.RollbackResponse, self.rollback),
            Method("SetSplit", pb.SetSplitRequest, pb.SetSplitResponse, self.set_split),
            Method("SetShadow", pb.SetShadowRequest, pb.SetShadowResponse, self.set_shadow),
        )

    @abstractmethod
    def list_models(self, request: pb.ListModelsRequest, call: Call, /) -> pb.ListModelsResponse:
        """Show every version."""

    @abstractmethod
    def load(self, request: pb.LoadModelRequest, call: Call, /) -> pb.LoadModelResponse:
        """Serve one more version."""

    @abstractmethod
    def unload(self, request: pb.UnloadModelRequest, call: Call, /) -> pb.UnloadModelResponse:
        """Serve a version no longer."""

    @abstractmethod
    def set_label(self, request: pb.SetLabelRequest, call: Call, /) -> pb.SetLabelResponse:
        """Move a label."""

    @abstractmethod
    def rollback(self, request: pb.RollbackRequest, call: Call, /) -> pb.RollbackResponse:
        """Move `stable` back."""

    @abstractmethod
    def set_split(self, request: pb.SetSplitRequest, call: Call, /) -> pb.SetSplitResponse:
        """Let labels answer a share."""

    @abstractmethod
    def set_shadow(self, request: pb.SetShadowRequest, call: Call, /) -> pb.SetShadowResponse:
        """Let another model answer again."""


class ModelAdminService(AdminService):
    """The methods over a manager of models.

    Args:
        manager: Loads, labels and splits.
        shadow: Lets models answer again.
    """

    def __init__(self, manager: ModelManager, shadow: Shadow) -> None:
        self._manager = manager
        self._shadow = shadow

    def list_models(self, _request: pb.ListModelsRequest, _call: Call) -> pb.ListModelsResponse:
        """Show every version."""
        states = self._manager.states()
        routing = [self._routing(name) for name in dict.fromkeys(state.name for state in states)]
        return pb.ListModelsResponse(
            versions=map(_to_version, states),
            routing=[each for each in routing if each.shares or each.shadow_model],
        )

    def load(self, request: pb.LoadModelRequest, _call: Call) -> pb.LoadModelResponse:
        """Serve one more version."""
        _require(request, "model")
        version = self._manager.load(request.model, request.revision).summary.version
        (state,) = (state for state in self._manager.states(request.model) if state.version == version)
        return pb.LoadModelResponse(version=_to_version(state))

    def unload(self, request: pb.UnloadModelRequest, call: Call) -> pb.UnloadModelResponse:
        """Serve a version no longer."""
        _require(request, "model", "version")
        drained = self._manager.unload(request.model, request.version, call.deadline.remaining)
        return pb.UnloadModelResponse(drained=drained)

    def set_label(self, request: pb.SetLabelRequest, _call: Call) -> pb.SetLabelResponse:
        """Move a label."""
        _require(request, "model", "label", "revision")
        self._manager.set_label(request.model, request.label, request.revision)
        return pb.SetLabelResponse(versions=self._versions(request.model))

    def rollback(self, request: pb.RollbackRequest, _call: Call) -> pb.RollbackResponse:
        """Move `stable` back."""
        _require(request, "model")
        self._manager.rollback(request.model)
        return pb.RollbackResponse(versions=self._versions(request.model))

    def set_split(self, request: pb.SetSplitRequest, _call: Call) -> pb.SetSplitResponse:
        """Let labels answer a share."""
        _require(request, "model")
        self._manager.set_split(request.model, dict(request.shares))
        return pb.SetSplitResponse()

    def set_shadow(self, request: pb.SetShadowRequest, _call: Call) -> pb.SetShadowResponse:
        """Let another model answer again."""
        _require(request, "model")
        rule = None
        if request.shadow_model:
            rule = ShadowRule(request.shadow_model, request.shadow_revision, request.share)
        self._shadow.set_rule(request.model, rule)
        return pb.SetShadowResponse()

    def _routing(self, model: str) -> pb.ModelRouting:
        made = pb.ModelRouting(model=model, shares=self._manager.split(model).shares)
        rule = self._shadow.rule(model)
        if rule is not None:
            made.shadow_model, made.shadow_revision, made.shadow_share = rule.model, rule.revision, rule.share
        return made

    def _versions(self, model: str) -> list[pb.ModelVersion]:
        return [_to_version(state) for state in self._manager.states(model)]


def _require(request: Message, *fields: str) -> None:
    missing = [FieldViolation(field, "is empty; it is required") for field in fields if not getattr(request, field)]
    if missing:
        raise InvalidRequest(*missing)


def _to_version(state: VersionState) -> pb.ModelVersion:
    model = state.model
    return pb.ModelVersion(
        model=state.name,
        version=state.version,
        labels=state.labels,
        loaded=model is not None,
        is_default=state.is_default,
        leases=model.leases if model is not None else 0,
        load_seconds=model.load_seconds if model is not None else 0.0,
        error=state.error,
        bundle_id=model.summary.bundle_id if model is not None else "",
    )
