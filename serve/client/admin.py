"""The client that changes what a running server serves: models, labels, splits and shadows.

    with AdminClient("127.0.0.1:50052") as admin:
        admin.set_label("student", "stable", "7")
        admin.rollback("student")

Every call raises the errors of `serve.client.errors`; a call that fails has changed nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc

from serve.client.channel import GrpcClient
from serve.client.recommender import MAX_ANSWER_BYTES
from serve.rpc.pb.lowpass.v1 import admin_pb2 as pb
from serve.rpc.pb.lowpass.v1 import admin_pb2_grpc


class AdminClient(GrpcClient):
    """A connection to the admin address of a server; a context manager.

    Args:
        target: `host:port`, or any gRPC target.
        timeout: Deadline of each call in seconds; a large bundle takes long to load.
        credentials: For TLS; None for plain text.
        api_key: Sent with each call; empty for none.
    """

    def __init__(
        self,
        target: str,
        timeout: float = 600.0,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        api_key: str = "",
    ) -> None:
        super().__init__(target, timeout, credentials, api_key, [("grpc.max_receive_message_length", MAX_ANSWER_BYTES)])
        make_stub: Any = admin_pb2_grpc.ModelAdminServiceStub
        self._stub = make_stub(self._channel)

    def models(self) -> list[pb.ModelVersion]:
        """Return every version that is in the repository or loaded."""
        return list(self.listing().versions)

    def listing(self) -> pb.ListModelsResponse:
        """Return every version, and of each model the split and shadow in force."""
        listed: pb.ListModelsResponse = self._call(self._stub.ListModels, pb.ListModelsRequest())
        return listed

    def load(self, model: str, revision: str = "") -> pb.ModelVersion:
        """Serve one more version, or the version that a label names, and return it.

        Args:
            model: Name of the model.
            revision: A version or a label; empty takes `stable` or, without one, the newest version.
        """
        loaded: pb.ModelVersion = self._call(
            self._stub.LoadModel, pb.LoadModelRequest(model=model, revision=revision)
        ).version
        return loaded

    def unload(self, model: str, version: str) -> bool:
        """Stop serving a version; return whether the requests that held it have ended."""
        return bool(self._call(self._stub.UnloadModel, pb.UnloadModelRequest(model=model, version=version)).drained)

    def set_label(self, model: str, label: str, revision: str) -> list[pb.ModelVersion]:
        """Load a version if need be, move a label to it, and return the model's versions."""
        request = pb.SetLabelRequest(model=model, label=label, revision=revision)
        return list(self._call(self._stub.SetLabel, request).versions)

    def rollback(self, model: str) -> list[pb.ModelVersion]:
        """Move `stable` back to `previous` and return the model's versions."""
        return list(self._call(self._stub.Rollback, pb.RollbackRequest(model=model)).versions)

    def set_split(self, model: str, shares: Mapping[str, float]) -> None:
        """Let labels answer shares of the requests that name neither version nor label; empty `shares` end it."""
        self._call(self._stub.SetSplit, pb.SetSplitRequest(model=model, shares=shares))

    def set_shadow(self, model: str, shadow: str = "", revision: str = "", share: float = 0.0) -> None:
        """Let another model answer a share of the requests again, unseen by callers; an empty `shadow` ends it."""
        request = pb.SetShadowRequest(model=model, shadow_model=shadow, shadow_revision=revision, share=share)
        self._call(self._stub.SetShadow, request)
