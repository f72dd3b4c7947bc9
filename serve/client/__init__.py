"""The Python SDK: clients of a running server. It needs the extra `client` alone: no NumPy, no model library.

    from serve.client import RecommenderClient

    with RecommenderClient("127.0.0.1:50051") as client:
        print(client.recommend("user-7", k=5).item_ids)

`RecommenderClient` asks for recommendations, `AdminClient` changes what the server serves, and `serve.client.errors`
lists what both raise. Of this project the package imports the generated `serve.rpc.pb` and nothing else.
"""

from serve.client.admin import AdminClient
from serve.client.answers import Item, ModelInfo, RecommendationList, ServerInfo
from serve.client.errors import (
    InvalidQuery,
    KeyRefused,
    NotFoundByServer,
    NotPossible,
    RecommenderError,
    ServerBusy,
    ServerUnavailable,
    TimeUp,
)
from serve.client.recommender import RecommenderClient

__all__ = [
    "AdminClient",
    "InvalidQuery",
    "Item",
    "KeyRefused",
    "ModelInfo",
    "NotFoundByServer",
    "NotPossible",
    "RecommendationList",
    "RecommenderClient",
    "RecommenderError",
    "ServerBusy",
    "ServerInfo",
    "ServerUnavailable",
    "TimeUp",
]
