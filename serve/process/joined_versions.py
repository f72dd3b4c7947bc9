"""What all workers hold, as one list: a line for each version, which says where workers differ."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serve.rpc.pb.lowpass.v1 import admin_pb2 as pb


def join_listings(listed: Mapping[int, pb.ListModelsResponse], workers: int) -> pb.ListModelsResponse:
    """One listing; split and shadow are those of the first worker, and what answers by default says if others differ.

    Args:
        listed: What each worker that answered knows; at least one.
        workers: How many workers there are.
    """
    versions = join_versions({number: each.versions for number, each in listed.items()}, workers)
    routed = [{each.model: each for each in of_worker.routing} for of_worker in listed.values()]
    for version in versions:
        here = [of_worker.get(version.model) for of_worker in routed]
        if version.is_default and any(each != here[0] for each in here):
            version.differs = "; ".join(filter(None, [version.differs, "not the same split or shadow in all workers"]))
    return pb.ListModelsResponse(versions=versions, routing=routed[0].values())


def join_versions(listed: Mapping[int, Sequence[pb.ModelVersion]], workers: int) -> list[pb.ModelVersion]:
    """One line for each version, which says where workers differ.

    Args:
        listed: What each worker that answered knows.
        workers: How many workers there are.
    """
    found: dict[tuple[str, str], dict[int, pb.ModelVersion]] = {}
    for number, versions in listed.items():
        for each in versions:
            found.setdefault((each.model, each.version), {})[number] = each
    return [_join(of_workers, listed, workers) for of_workers in found.values()]


def _join(of_workers: Mapping[int, pb.ModelVersion], listed: Mapping[int, Any], workers: int) -> pb.ModelVersion:
    loaded = {number: each for number, each in of_workers.items() if each.loaded}
    default = [number for number, each in loaded.items() if each.is_default]
    silent = [number for number in range(workers) if number not in listed]
    differs = []
    if 0 < len(loaded) < len(listed):
        differs.append(f"loaded by {name_workers(loaded)} alone")
    if 0 < len(default) < len(listed):
        differs.append(f"answers by default in {name_workers(default)} alone")
    if len({each.bundle_id for each in loaded.values()}) > 1:
        differs.append("not the same bundle in all workers")
    if loaded and silent:
        differs.append(f"no answer of {name_workers(silent)}")
    joined = pb.ModelVersion()
    joined.CopyFrom(next(iter(loaded.values()), next(iter(of_workers.values()))))
    joined.loaded = len(loaded) == len(listed)
    joined.is_default = len(default) == len(listed)
    joined.leases = sum(each.leases for each in loaded.values())
    joined.load_seconds = max((each.load_seconds for each in loaded.values()), default=0.0)
    joined.error = "; ".join(f"worker {number}: {each.error}" for number, each in of_workers.items() if each.error)
    joined.differs = "; ".join(differs)
    return joined


def name_workers(numbers: Iterable[int]) -> str:
    """Worker numbers in words."""
    words = [str(number) for number in sorted(numbers)]
    return f"worker {words[0]}" if len(words) == 1 else f"workers {', '.join(words[:-1])} and {words[-1]}"
