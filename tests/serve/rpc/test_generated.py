from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
GENERATE = ROOT / "protos" / "generate.py"


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> object:
    pytest.importorskip("grpc_tools", reason="grpcio-tools is a development tool")
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(GENERATE.parent))
    spec = importlib.util.spec_from_file_location("generate", GENERATE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "generate", module)
    spec.loader.exec_module(module)
    return module.main


def test_the_committed_code_is_what_the_protos_say(generate: object) -> None:
    assert callable(generate)
    assert generate(["--check", "serve/rpc/pb"]) == 0


def test_drift_is_found_and_repaired(
    generate: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(generate)
    monkeypatch.chdir(tmp_path)
    assert generate(["--check", "pb"]) == 1
    assert "pb/lowpass/v1/recommender_pb2.py has drifted: run `make proto`" in capsys.readouterr().err
    assert generate(["pb"]) == 0
    assert generate(["--check", "pb"]) == 0
    (tmp_path / "pb" / "left_over.py").write_text("")
    assert generate(["--check", "pb"]) == 1
    assert generate(["pb"]) == 0
    assert not (tmp_path / "pb" / "left_over.py").exists()
