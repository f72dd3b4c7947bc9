"""Who may look and who may change, and which requests come from the console's own page.

A page from elsewhere in the same browser is a stranger who can send requests here. It cannot send its own name as
ours: `Host` is checked against names that only a real visit has (DNS rebinding), `Origin` and `Sec-Fetch-Site` against
pages of others (cross-site requests), and no answer lets other origins read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from serve.answers.errors import RequestError, Unauthenticated
from serve.rpc.credentials import ApiKeys, Metadata

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Names under which a browser reaches this machine, or the near end of a tunnel to it."""


class Access:
    """Looking needs a key where any are configured, changing an operator's where those are.

    Args:
        askers: File of keys that may ask.
        operators: File of keys that may change.

    Raises:
        UnusableCredentials: A file cannot be read, a line of it is wrong, or it has no key yet.
    """

    def __init__(self, askers: Path | None, operators: Path | None) -> None:
        self._operators = None if operators is None else ApiKeys(operators)
        self._askers = None if askers is None else ApiKeys(askers)

    def may_look(self, metadata: Metadata) -> RequestError | None:
        """Why a caller who shows this metadata may not look, or None if it may."""
        known = [keys for keys in (self._askers, self._operators) if keys is not None]
        if not known or any(keys.authorize(metadata) is None for keys in known):
            return None
        return Unauthenticated()

    def may_change(self, metadata: Metadata) -> RequestError | None:
        """Why a caller who shows this metadata may not change, or None if it may."""
        return self.may_look(metadata) if self._operators is None else self._operators.authorize(metadata)


def is_ours(headers: Mapping[str, str], *, names: frozenset[str]) -> bool:
    """Whether a request was sent to us, under a name of ours.

    Args:
        names: Names of hosts; empty where TLS has checked the name already.
    """
    host = headers.get("host", "").lower()
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    return not names or name in names


def is_from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a page of another origin sent a request; browsers that do not say so are judged by `is_same_origin`."""
    return headers.get("sec-fetch-site", "none") not in {"same-origin", "none"}


def is_same_origin(headers: Mapping[str, str], *, scheme: str) -> bool:
    """Whether our own page sent a request; who sends no `Origin` is no page, and has the admin address for changes."""
    host = headers.get("host", "").lower()
    return bool(host) and headers.get("origin", "").lower() == f"{scheme}://{host}"
