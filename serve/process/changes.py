"""What was changed since the start, for a worker that starts later: as requests of the admin service."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from serve.client.admin import AdminClient
from serve.rpc.pb.lowpass.v1 import admin_pb2 as pb

if TYPE_CHECKING:
    from serve.live.shadow import ShadowRule

Telling = Callable[[AdminClient, Any], object]
TELL: Mapping[type[Message], Telling] = {
    pb.LoadModelRequest: lambda admin, request: admin.load(request.model, request.revision),
    pb.UnloadModelRequest: lambda admin, request: admin.unload(request.model, request.version),
    pb.SetSplitRequest: lambda admin, request: admin.set_split(request.model, request.shares),
    pb.SetShadowRequest: lambda admin, request: admin.set_shadow(
        request.model, request.shadow_model, request.shadow_revision, request.share
    ),
}
"""How a client sends each kind of change. Labels are none of them: they are on disk, where every worker finds them."""


class Changes:
    """The changes that are in effect; what a later one made void is forgotten.

    Args:
        splits: Model → label → share, from the start.
        shadows: Model → who answers its requests again, from the start.
    """

    def __init__(self, splits: Mapping[str, Mapping[str, float]], shadows: Mapping[str, ShadowRule]) -> None:
        self._first_splits = {model: pb.SetSplitRequest(model=model, shares=shares) for model, shares in splits.items()}
        self._first_shadows = {
            model: pb.SetShadowRequest(
                model=model, shadow_model=rule.model, shadow_revision=rule.revision, share=rule.share
            )
            for model, rule in shadows.items()
        }
        self._loads: dict[tuple[type[Message], str, str], Message] = {}
        self._splits: dict[str, pb.SetSplitRequest] = {}
        self._shadows: dict[str, pb.SetShadowRequest] = {}

    def load(self, model: str, revision: str, version: str) -> None:
        """`revision`, now `version`, is served from now on."""
        self._loads.pop((pb.UnloadModelRequest, model, version), None)
        self._loads[pb.LoadModelRequest, model, revision] = pb.LoadModelRequest(model=model, revision=revision)

    def unload(self, model: str, version: str, labels: Collection[str]) -> None:
        """`version`, which `labels` name, is served no longer."""
        for revision in (version, *labels):
            self._loads.pop((pb.LoadModelRequest, model, revision), None)
        self._loads[pb.UnloadModelRequest, model, version] = pb.UnloadModelRequest(model=model, version=version)

    def set_split(self, request: pb.SetSplitRequest) -> None:
        """A split is in effect, or none any more."""
        self._splits[request.model] = request

    def set_shadow(self, request: pb.SetShadowRequest) -> None:
        """A shadow is in effect, or none any more."""
        self._shadows[request.model] = request

    def split_of(self, model: str) -> pb.SetSplitRequest:
        """The request for what is in effect."""
        return self._splits.get(model) or self._first_splits.get(model) or pb.SetSplitRequest(model=model)

    def shadow_of(self, model: str) -> pb.SetShadowRequest:
        """The request for what is in effect."""
        return self._shadows.get(model) or self._first_shadows.get(model) or pb.SetShadowRequest(model=model)

    def in_order(self) -> list[Message]:
        """All of them; splits and shadows after the versions that they need."""
        return [*self._loads.values(), *self._splits.values(), *self._shadows.values()]
