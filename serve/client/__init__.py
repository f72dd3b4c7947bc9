"""The Python SDK: `from serve.client import RecommenderClient`; it needs the extra `client` and no model library."""

from serve.client.admin import AdminClient
from serve.client.recommender import RecommenderClient

__all__ = ["AdminClient", "RecommenderClient"]
