"""The DAG without Airflow: a stand-in for the little of it that is asked for, and a real program that ends as told."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DAG = Path(__file__).resolve().parents[3] / "deploy" / "airflow" / "lowpass_job.py"


class AirflowError(Exception):
    pass


class FailAtOnce(AirflowError):
    pass


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stand-ins for airflow's modules; what the file hands to them is kept here."""
    seen: dict[str, Any] = {}

    def dag(**settings: Any) -> Callable[[Callable[[], None]], Callable[[], None]]:
        seen["dag"] = settings
        return lambda made: made

    def task(**settings: Any) -> Callable[[Callable[[], None]], Callable[[], None]]:
        seen["task"] = settings

        def keep(work: Callable[[], None]) -> Callable[[], None]:
            seen["work"] = work
            return lambda: None

        return keep

    decorators, exceptions = ModuleType("airflow.decorators"), ModuleType("airflow.exceptions")
    vars(decorators).update(dag=dag, task=task)
    vars(exceptions).update(AirflowException=AirflowError, AirflowFailException=FailAtOnce)
    for module in (ModuleType("airflow"), decorators, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


@pytest.mark.parametrize(("code", "raised"), [(0, None), (1, AirflowError), (2, FailAtOnce), (3, FailAtOnce)])
def test_only_what_may_end_otherwise_is_tried_again(
    code: int, raised: type[Exception] | None, airflow: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "lowpass"
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/words\nexit {code}\n')
    program.chmod(0o755)
    monkeypatch.setenv("LOWPASS", str(program))
    monkeypatch.setenv("LOWPASS_JOB", "/etc/lowpass/shop.toml")
    runpy.run_path(str(DAG))
    if raised is None:
        airflow["work"]()
    else:
        with pytest.raises(AirflowError) as caught:
            airflow["work"]()
        assert type(caught.value) is raised
    assert (tmp_path / "words").read_text() == "job run /etc/lowpass/shop.toml\n"
    assert airflow["dag"]["max_active_runs"] == 1
