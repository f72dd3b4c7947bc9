"""The Python SDK for changing what a server serves.

    with AdminClient("127.0.0.1:50052") as admin:
        admin.set_label("student", "stable", "7")
        admin.rollback("student")

Calls fail with the errors of `serve.client.errors`; a failed one has changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from serve.client.channel import GrpcClient
from serve.rpc.pb.lowpass.v1 import admin_pb2 as pb
from serve.rpc.pb.lowpass.v1 import admin_pb2_grpc


class AdminClient(GrpcClient):
    """A connection to the admin address of a server.

    Args:
        target: `host:port`, or any gRPC target.
        timeout: Deadline of each call in seconds; loading a large bundle takes long.
        credentials: For TLS; None for plain text.
        api_key: Shown with each call; empty for none.
    """

    def __init__(
        self,
        target: str,
        timeout: float = 600.0,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str = "",
    ) -> None:
        super().__init__(target, timeout, credentials, api_key)
        make_stub: Any = admin_pb2_grpc.ModelAdminServiceStub
        self._stub = make_stub(self._channel)

    def models(self) -> list[pb.ModelVersion]:
        """Every version in the repository or loaded."""
        return list(self._call(self._stub.ListModels, pb.ListModelsRequest()).versions)

    def load(self, model: str, revision: str = "") -> pb.ModelVersion:
        """Serve one more version, or what one more label names.

        Args:
            model: Its name.
            revision: A version or a label; empty for `stable` or, without one, the newest.
        """
        loaded: pb.ModelVersion = self._call(
            self._stub.LoadModel, pb.LoadModelRequest(model=model, revision=revision)
        ).version
        return loaded

    def unload(self, model: str, version: str) -> bool:
        """Serve a version no longer; returns whether the requests that held it have ended."""
        return bool(self._call(self._stub.UnloadModel, pb.UnloadModelRequest(model=model, version=version)).drained)

    def set_label(self, model: str, label: str, revision: str) -> list[pb.ModelVersion]:
        """Load a version if need be and move a label to it; returns the model's versions."""
        request = pb.SetLabelRequest(model=model, label=label, revision=revision)
        return list(self._call(self._stub.SetLabel, request).versions)

    def rollback(self, model: str) -> list[pb.ModelVersion]:
        """Move `stable` back to `previous`; returns the model's versions."""
        return list(self._call(self._stub.Rollback, pb.RollbackRequest(model=model)).versions)

    def set_split(self, model: str, shares: Mapping[str, float]) -> None:
        """Let labels answer shares of the requests that name neither version nor label; empty for no split."""
        self._call(self._stub.SetSplit, pb.SetSplitRequest(model=model, shares=shares))

    def set_shadow(self, model: str, shadow: str = "", revision: str = "", share: float = 0.0) -> None:
        """Let another model answer a share of the requests again; without one, no longer."""
        request = pb.SetShadowRequest(model=model, shadow_model=shadow, shadow_revision=revision, share=share)
        self._call(self._stub.SetShadow, request)
