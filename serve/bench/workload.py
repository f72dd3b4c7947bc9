"""Which users ask, and their requests, serialized before the clock starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from export.bundle.idtable import IdTable
from serve.bench.errors import BenchError
from serve.rpc.pb.lowpass.v1 import recommender_pb2 as pb

Distribution = Literal["uniform", "zipf"]


@dataclass(frozen=True)
class Workload:
    """What is asked.

    Attributes:
        model: Name of the model; empty asks the server's default.
        k: Items an answer.
        distribution: "uniform" asks for every user alike; "zipf" for few users often: the user of popularity rank r
            with probability proportional to 1/r, ranks dealt out at random.
        seed: Of the draws; the same seed asks for the same users in the same order.
    """

    model: str = ""
    k: int = 20
    distribution: Distribution = "uniform"
    seed: int = 0

    def payloads(self, user_ids: IdTable | Sequence[str]) -> Iterator[bytes]:
        """Yield serialized `RecommendRequest`s without end.

        Args:
            user_ids: Everybody who may ask.

        Raises:
            BenchError: There are no users.
        """
        rng = np.random.default_rng(self.seed)
        user_at = user_ids.get if isinstance(user_ids, IdTable) else user_ids.__getitem__
        weights = user_weights(len(user_ids), self.distribution, rng)
        selector = pb.ModelSelector(name=self.model)
        while True:
            for row in rng.choice(len(user_ids), size=1024, p=weights):
                request = pb.RecommendRequest(user_id=user_at(int(row)), k=self.k, model=selector)
                yield request.SerializeToString()


def user_weights(num_users: int, distribution: Distribution, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Probability of each user, shape (num_users,); `rng` deals out the ranks of "zipf".

    Raises:
        BenchError: There are no users.
    """
    if num_users < 1:
        raise BenchError("the bundle has no users to ask for: export it again")
    if distribution == "uniform":
        return np.full(num_users, 1.0 / num_users)
    weights = 1.0 / np.arange(1, num_users + 1)
    rng.shuffle(weights)
    return np.asarray(weights / weights.sum(), dtype=np.float64)
