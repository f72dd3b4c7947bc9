"""Cores by made-up control groups, and by a real one where this machine lets one be made."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import lowpass
from export.bundle.repository import ModelRepository
from serve.client.recommender import RecommenderClient
from serve.process import cores
from serve.process.cores import default_threads, usable_cores
from tests.serve.processes import serving

MINE = float(len(os.sched_getaffinity(0)))


def groups(folder: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A membership and the groups."""
    where, mounted = folder / "membership", folder / "mounted"
    where.write_text(membership)
    for name, text in files.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(text)
    return where, mounted


V1 = {"cpu.cfs_quota_us": "50000\n", "cpu.cfs_period_us": "100000\n"}


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "25000 100000\n"}, 0.25),
        ("0::/a/b\n", {"a/b/cpu.max": "25000 100000\n", "a/cpu.max": "50000 100000\n"}, 0.25),
        ("0::/seen/by/the/host\n", {"cpu.max": "50000 100000\n"}, 0.5),
        ("1:cpu,cpuacct:/a\n", {f"cpu,cpuacct/a/{name}": text for name, text in V1.items()}, 0.5),
        ("3:cpuacct:/\n1:cpu:/docker/1\n0::/\n", {f"cpu/{name}": text for name, text in V1.items()}, 0.5),
        ("1:name=systemd:/\n0::/\n", {"unified/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, MINE),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, MINE),
        ("1:cpuset:/\n", {f"cpuset/{name}": text for name, text in V1.items()}, MINE),
        ("0::/\n", {"cpu.max": "nonsense\n"}, MINE),
        ("0::/\n", {"cpu.max": "100000000 100000\n"}, MINE),
        ("", {}, MINE),
    ],
)
def test_the_least_of_affinity_and_quotas(
    tmp_path: Path, membership: str, files: dict[str, str], expected: float
) -> None:
    assert usable_cores(*groups(tmp_path, membership, files)) == expected


def test_without_control_groups_it_is_the_affinity(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path) == MINE
    first = min(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, [{first}]); from serve.process.cores import *; print(usable_cores())"
    assert float(subprocess.check_output([sys.executable, "-c", code])) <= 1.0


@pytest.mark.parametrize(("found", "threads"), [(0.1, 2), (0.5, 2), (1.0, 2), (1.5, 3), (2.0, 4), (64.0, 4)])
def test_a_server_has_threads_by_its_cores(monkeypatch: pytest.MonkeyPatch, found: float, threads: int) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: found)
    assert default_threads() == threads


@pytest.mark.parametrize(("found", "before", "after"), [(0.5, None, "1"), (0.5, "3", "3"), (MINE, None, None)])
def test_native_pools_of_other_commands_obey_the_quota_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, found: float, before: str | None, after: str | None
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: found)
    monkeypatch.setenv("OMP_NUM_THREADS", before or "")
    if before is None:
        monkeypatch.delenv("OMP_NUM_THREADS")
    assert lowpass.main(["data", "--help"]) == 0
    assert os.environ.get("OMP_NUM_THREADS") == after


@contextmanager
def half_a_core() -> Iterator[Path]:
    """A control group with that quota, removed afterwards."""
    name = f"lowpass-test-{os.getpid()}"
    bounds: dict[str, str]
    for parent, bounds in (
        (Path("/sys/fs/cgroup/cpu"), {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}),
        (Path("/sys/fs/cgroup"), {"cpu.max": "50000 100000"}),
    ):
        group = parent / name
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for file, text in bounds.items():
                (group / file).write_text(text)
            yield group
            return
        except OSError:
            continue
        finally:
            group.rmdir()
    pytest.skip("this machine lets no control group with a quota of processor time be made")


def inside(group: Path) -> tuple[str, ...]:
    """Words before a command that put it into a group."""
    return ("sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh")


@pytest.mark.timeout(240)
def test_a_real_control_group_is_obeyed(repository: ModelRepository, tmp_path: Path) -> None:
    with half_a_core() as group:
        code = "from serve.process.cores import usable_cores, default_threads; print(usable_cores(), default_threads())"
        assert subprocess.check_output([*inside(group), sys.executable, "-c", code], text=True) == "0.5 2\n"
        words: Any = ("--repository", str(repository.root), "--model", "student", "--drain-wait", "0")
        with serving(tmp_path, *words, before=inside(group)) as server:
            with RecommenderClient(server.address, timeout=30.0) as client:
                assert all(len(client.recommend(f"u{user}", k=5)) == 5 for user in range(20))
            assert "lowpass_log_lines_dropped_total 0.0" in server.scrape()
            assert server.terminate(60.0) == 0
