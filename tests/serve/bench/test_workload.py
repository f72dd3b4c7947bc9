from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from export.bundle import open_bundle
from export.bundle.repository import ModelRepository
from serve.bench.errors import BenchError
from serve.bench.workload import Distribution, Workload, user_weights
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb


def test_requests_ask_for_known_users_and_repeat_with_the_seed(repository: ModelRepository) -> None:
    users = open_bundle(repository.resolve("student")).user_ids
    workload = Workload(model="student", k=7, seed=3)
    first = [pb.RecommendRequest.FromString(payload) for payload in islice(workload.payloads(users), 50)]
    again = [pb.RecommendRequest.FromString(payload) for payload in islice(workload.payloads(users), 50)]
    assert first == again
    assert {(request.k, request.model.name) for request in first} == {(7, "student")}
    assert all(users.index_of(request.user_id) >= 0 for request in first)
    assert len({request.user_id for request in first}) > 10


@pytest.mark.parametrize("distribution", ["uniform", "zipf"])
def test_weights_are_a_distribution(distribution: Distribution) -> None:
    weights = user_weights(10, distribution, np.random.default_rng(0))
    assert weights.sum() == pytest.approx(1.0)
    assert weights.max() / weights.min() == pytest.approx(1.0 if distribution == "uniform" else 10.0)


def test_no_users() -> None:
    with pytest.raises(BenchError, match="no users"):
        user_weights(0, "uniform", np.random.default_rng(0))
