"""Everything that can go wrong in serving, in words of the domain.

    ServingError
    ├── StartupError            the server cannot start; the user's fault
    │   ├── WrongOptions        options contradict each other, or one cannot be read
    │   ├── NothingToServe      the repository holds no model, or none that was asked for
    │   ├── UnusableBundle      a bundle opened but cannot answer
    │   ├── AddressUnavailable  an address is malformed or cannot be bound
    │   ├── UnusableCredentials a file of keys or certificates is missing or wrong
    │   └── ExtraMissing        an optional package is asked for and not installed
    └── RequestError            a request is refused; the server is well
        ├── InvalidRequest      fields of the request are wrong
        ├── NotFound            the request names something that is not there
        │   ├── UnknownUser     no such user, and no fallback was allowed
        │   ├── WrongShard      the user's row is on another server
        │   ├── UnknownItem     no such item
        │   ├── UnknownHistory  no item of the history is known, and no fallback was allowed
        │   ├── ModelNotServed  no such model is loaded
        │   ├── VersionNotServed    the model is, this version is not
        │   ├── LabelNotServed      the model is, this label is not
        │   └── NotInRepository     no such model, version or label on disk
        ├── FoldInUnavailable   the model cannot answer histories
        ├── ModelUnusable       a bundle is wrong, or the repository is; what was served goes on
        ├── ModelInUse          the version answers by default and cannot be unloaded
        ├── Unauthenticated     the caller shows no key that may call
        ├── Overloaded          too many requests in flight; try again later
        ├── IndexUnavailable    the engine that holds the items does not answer; try again later
        ├── DeadlineExpired     the caller's, or the server's, time was up before an answer
        ├── CallerLeft          nobody waits for the answer any more
        ├── NotReady            the server still loads its models
        └── ShuttingDown        the server drains; another one will answer

No error here knows a status code: `serve.rpc.status` maps them all, and a test proves that it does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

SHOWN = 200
"""Characters of a name from outside that an error repeats."""


def shown(name: str) -> str:
    """A name as an error repeats it: quoted, and cut where it is long."""
    return repr(name if len(name) <= SHOWN else name[: SHOWN - 1] + "…")


class ServingError(Exception):
    """Root of the tree; `exit_code` 2 tells the command line whose fault it is."""

    exit_code: ClassVar[int] = 2


class StartupError(ServingError):
    """The server cannot start."""


class WrongOptions(StartupError):
    """Options contradict each other, or one cannot be read."""


class NothingToServe(StartupError):
    """The repository holds no model, or none that was asked for."""


class UnusableBundle(StartupError):
    """A bundle opened but cannot answer."""


class AddressUnavailable(StartupError):
    """An address is malformed or cannot be bound."""


class UnusableCredentials(StartupError):
    """A file of keys or certificates is missing or wrong."""


class ExtraMissing(StartupError):
    """An optional package is asked for and not installed."""


class RequestError(ServingError):
    """A request is refused; the server is well."""


@dataclass(frozen=True)
class FieldViolation:
    """One wrong field of a request.

    Args:
        field: Its path, as in the public interface, e.g. "history.item_ids".
        description: What is wrong and what would be right.
    """

    field: str
    description: str


class InvalidRequest(RequestError):
    """Fields of the request are wrong.

    Args:
        violations: All of them, not just the first.
    """

    def __init__(self, *violations: FieldViolation) -> None:
        super().__init__("; ".join(f"{wrong.field}: {wrong.description}" for wrong in violations))
        self.violations = violations


class NotFound(RequestError):
    """The request names something that is not there."""

    kind: ClassVar[str] = "resource"
    remedy: ClassVar[str] = "check the name"

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown {self.kind} {shown(name)}: {self.remedy}")
        self.name = name


class UnknownUser(NotFound):
    """No such user, and no fallback was allowed."""

    kind = "user"
    remedy = "send a history instead of a user id, or set allow_fallback"


class WrongShard(NotFound):
    """The user's row is on another server: not to be hidden by a fallback, since the caller's routing is wrong.

    Args:
        name: Id of the user.
        model: Name of the model.
        shard: Where the user is.
        here: The shard that this server has.
        shards: How many there are.
    """

    kind = "user"
    remedy = "ask a server of its shard, by metadata x-lowpass-shard"

    def __init__(self, name: str, model: str, shard: int, here: int, shards: int) -> None:
        super().__init__(name)
        where = f"user {shown(name)} is in shard {shard} of {shards} of model {model!r}, this server has shard {here}"
        self.args = (f"{where}: send metadata 'x-lowpass-shard: {shard}', or give the client {shards} user_shards",)
        self.model, self.shard, self.shards = model, shard, shards


class UnknownItem(NotFound):
    """No such item."""

    kind = "item"
    remedy = "the model was trained without it"


class UnknownHistory(NotFound):
    """No item of the history is known, and no fallback was allowed."""

    kind = "history"
    remedy = "the model knows none of its items; set allow_fallback"


class ModelNotServed(NotFound):
    """No such model is loaded."""

    kind = "model"
    remedy = "GetInfo lists what is served"


class VersionNotServed(NotFound):
    """The model is loaded, this version of it is not."""

    kind = "version"
    remedy = "GetInfo lists what is served"


class LabelNotServed(NotFound):
    """The model is loaded, this label of it is not."""

    kind = "label"
    remedy = "GetInfo lists what is served"


class NotInRepository(NotFound):
    """No such model, version or label on disk."""

    kind = "bundle"
    remedy = "List shows what the repository holds"


class ModelUnusable(RequestError):
    """A bundle is wrong, or the repository is; what was served goes on."""


class ModelInUse(RequestError):
    """The version answers by default and cannot be unloaded."""

    def __init__(self, model: str, version: str) -> None:
        super().__init__(f"{model}:{version} answers by default: move its label to another version first")


class FoldInUnavailable(RequestError):
    """The model cannot answer histories."""

    def __init__(self, model: str) -> None:
        super().__init__(f"model {model!r} has no fold-in graph: send a user id, or set allow_fallback")
        self.model = model


class Unauthenticated(RequestError):
    """The caller shows no key that may call."""

    def __init__(self) -> None:
        super().__init__("no valid API key: send metadata 'authorization: Bearer KEY'")


class Overloaded(RequestError):
    """Too many requests are in flight.

    Args:
        retry_after: When trying again makes sense, in seconds.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"too many requests in flight: try again in {retry_after * 1000:.0f} ms")
        self.retry_after = retry_after


class IndexUnavailable(RequestError):
    """The engine that holds the items does not answer.

    Args:
        what: Which, and why.
        retry_after: When trying again makes sense, in seconds.
    """

    def __init__(self, what: str, retry_after: float) -> None:
        super().__init__(f"{what}: try again in {retry_after * 1000:.0f} ms")
        self.retry_after = retry_after


class DeadlineExpired(RequestError):
    """The caller's, or the server's, time was up before an answer."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: allow more time, or ask for less at once")


class CallerLeft(RequestError):
    """Nobody waits for the answer any more."""


class NotReady(RequestError):
    """The server still loads its models."""


class ShuttingDown(RequestError):
    """The server drains; another one will answer."""
