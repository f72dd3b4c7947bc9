"""One call as the services see it: what every transport must provide, and nothing of any."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from time import perf_counter_ns

from serve.answers.admission import Deadline
from serve.answers.errors import CallerLeft


@dataclass(slots=True)
class Call:
    """One request on its way through the server.

    Args:
        arrival_ns: When it arrived, by `perf_counter_ns`.
        deadline: When it must be answered.
        is_active: Whether the caller still waits.
        taken_up_ns: When a thread took it up, by `perf_counter_ns`.
        model: Name of the model that answers; empty until it is found.
        version: Version of the model that answers.
        request_id: The caller's own, or made up.
        metadata: What the caller sent beside the message.
        protocol: It came by, as traces name it.
        encode_ns: From ids to vectors, in all that was computed for it; so the next two.
        search_ns: From vectors to scored candidates.
        filter_ns: From candidates to answers.
        trace_id: Of the trace that has its span; empty for none.
    """

    arrival_ns: int
    deadline: Deadline
    is_active: Callable[[], bool]
    taken_up_ns: int
    model: str = ""
    version: str = ""
    request_id: str = ""
    metadata: Iterable[tuple[str, str | bytes]] = ()
    protocol: str = "grpc"
    encode_ns: int = 0
    search_ns: int = 0
    filter_ns: int = 0
    trace_id: str = ""

    def check(self) -> None:
        """Refuse work nobody waits for.

        Raises:
            DeadlineExpired: Its time is up.
            CallerLeft: Its caller no longer waits.
        """
        self.deadline.check()
        if not self.is_active():
            raise CallerLeft("the caller left before its answer")

    @property
    def queue_ns(self) -> int:
        """How long it waited for a thread."""
        return self.taken_up_ns - self.arrival_ns

    @property
    def age_ns(self) -> int:
        """How long ago it arrived."""
        return perf_counter_ns() - self.arrival_ns
