from __future__ import annotations

from typing import Any

import pytest

from serve.process.joined_versions import join_versions, name_workers
from serve.rpc.pb.lowpass.v1 import admin_pb2 as pb


def version(number: str = "1", **fields: Any) -> pb.ModelVersion:
    return pb.ModelVersion(
        model="m", version=number, **{"loaded": True, "is_default": True, "bundle_id": "a", **fields}
    )


def test_workers_that_agree_are_one_line() -> None:
    (joined,) = join_versions({0: [version(leases=2, load_seconds=1.0)], 1: [version(leases=3, load_seconds=2.0)]}, 2)
    assert joined == version(leases=5, load_seconds=2.0)


@pytest.mark.parametrize(
    ("others", "loaded", "default", "differs"),
    [
        ([version(loaded=False, is_default=False, bundle_id="")] * 2, False, False, "loaded by worker 0 alone"),
        ([version(), version(is_default=False)], True, False, "answers by default in workers 0 and 1 alone"),
        ([version(bundle_id="b"), version()], True, True, "not the same bundle in all workers"),
    ],
)
def test_where_they_differ_is_said(others: list[pb.ModelVersion], loaded: bool, default: bool, differs: str) -> None:
    listed = {0: [version()], 1: others[:1], 2: others[1:]}
    (joined,) = join_versions(listed, 3)
    assert (joined.loaded, joined.is_default) == (loaded, default)
    assert joined.differs.startswith(differs)


def test_who_does_not_answer_is_named_where_it_matters() -> None:
    on_disk = version("2", loaded=False, is_default=False, bundle_id="")
    served, other = join_versions({1: [version(), on_disk]}, 3)
    assert (served.loaded, served.differs) == (True, "no answer of workers 0 and 2")
    assert (other.loaded, other.differs) == (False, "")


def test_a_version_that_one_worker_alone_knows_is_listed_and_errors_say_whose_they_are() -> None:
    first, second = join_versions({0: [version(error="broken")], 1: [version(), version("2", is_default=False)]}, 2)
    assert first.error == "worker 0: broken"
    assert (second.version, second.loaded, second.differs) == ("2", False, "loaded by worker 1 alone")


def test_workers_in_words() -> None:
    assert [name_workers(numbers) for numbers in ([3], [1, 0], {2: "", 0: "", 1: ""})] == [
        "worker 3",
        "workers 0 and 1",
        "workers 0, 1 and 2",
    ]
