from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import lowpass
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.run import Run, write_run
from export.build.publish import ExportOptions, export_run
from export.bundle.repository import ModelRepository
from serve.bench.servers import ServerProcess
from serve.process.options import ServerOptions
from serve.process.server import Server

QUICK = ["--rounds", "1", "--seconds", "0.1"]


@contextlib.contextmanager
def running(**options: object) -> Iterator[Server]:
    """A server in this process."""
    server = Server(ServerOptions(address="127.0.0.1:0", metrics_address="127.0.0.1:0", drain_wait=0.0, **options))  # type: ignore[arg-type]
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    with running() as server:
        yield server.address


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher of 16 numbers and students of 8, one with an answer table, exported from random embeddings."""
    root = tmp_path_factory.mktemp("compared")
    data = synthesize(SyntheticOptions(num_users=80, num_items=300, num_clusters=8, mean_interactions=12))
    rng = np.random.default_rng(0)
    for name, dim, answer_table in (("big", 16, 0), ("small", 8, 0), ("ready", 8, 20)):
        users, items = (rng.normal(size=(n, dim)).astype(np.float32) for n in (data.num_users, data.num_items))
        config = {"backbone": "bprmf", "method": "freqd", "data": {"fingerprint": data.fingerprint}}
        write_run(root / "runs" / name, config, users, items, {})
        run = Run(root / "runs" / name, config, users, items, {})
        export_run(run, data, ModelRepository(root / "models"), name, ExportOptions(answer_table=answer_table))
    return root / "models"


@pytest.fixture
def no_child_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers and other commands run in this process, which is quicker: test_servers.py starts some."""

    @contextlib.contextmanager
    def serve_model(repository: Path, model: str, _core: int | None) -> Iterator[ServerProcess]:
        with running(repository=repository, models=[model]) as server:
            yield ServerProcess(model, server.address, os.getpid())

    def run_lowpass(*arguments: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            assert lowpass.main([*arguments, "--json"]) == 0

    monkeypatch.setattr("serve.bench.comparison.serve_model", serve_model)
    monkeypatch.setattr("serve.bench.comparison.run_lowpass", run_lowpass)


@pytest.fixture
def users(tmp_path: Path) -> Path:
    path = tmp_path / "users"
    path.write_text("user-1\nuser-2\nuser-3\n")
    return path


@pytest.mark.timeout(120)
def test_an_open_loop_on_a_running_server(target: str, users: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "--target", target, "--users-file", str(users), "--seconds", "0.3", "--windows", "3"]
    assert lowpass.main([*command, "--rate", "60", "--processes", "2", "--slo-ms", "500", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    (numbers,) = result["targets"].values()
    assert numbers["errors"] == {}
    assert numbers["intended_per_second"] == pytest.approx(60)
    assert 20 < numbers["answers_per_second"] < 120
    assert numbers["goodput_per_second"] <= numbers["answers_per_second"]


@pytest.mark.timeout(120)
def test_a_running_server_beside_another(
    target: str, users: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["bench", "--target", target, "--users-file", str(users), "--seconds", "0.1", "--windows", "3"]
    out = tmp_path / "bench"
    assert lowpass.main([*base, "--in-flight", "2", "--compare", target, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "second / first" in said
    names = {"bench.json", "bench.md", "bench.hgrm", "bench-2.hgrm", "bench.png"}
    assert {path.name for path in out.iterdir()} == names
    assert (out / "bench.md").read_text() in said


def test_a_limit_that_nobody_keeps(target: str, users: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "--target", target, "--users-file", str(users), "--seconds", "0.1", "--find-rate"]
    assert lowpass.main([*command, "--slo-ms", "0.0001"]) == 2
    assert "not even one request a second" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rate", "5", "--in-flight", "2"], "not both"),
        (["--find-rate"], "--find-rate needs --slo-ms"),
        (["--bundle", "."], "give --bundle or --users-file"),
        (["--against", "teacher"], "--against compares models and needs --repository"),
        (["--no-rivals"], "--rivals compares models and needs --repository"),
        (["--repository", "."], "--users-file loads a running server and goes without --repository"),
    ],
)
def test_contradictions_are_usage_errors(
    users: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert lowpass.main(["bench", "--users-file", str(users), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("no_child_processes")
def test_models_are_compared_with_rivals_that_are_made(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "--repository", str(models), "--against", "big", "--model", "small"]
    assert lowpass.main([*command, "--out", str(tmp_path), *QUICK, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content == json.loads((tmp_path / "bench.json").read_text())
    assert [model["name"] for model in content["models"]] == ["big", "small", "big-svd8", "big-pq32"]
    teacher, student, *_ = content["models"]
    assert (teacher["item_bytes"], student["item_bytes"]) == (64, 32)
    for model in content["models"]:
        assert model["errors"] == {}
        assert 0 < model["levels"]["1"]["p50_ms"]["median"] <= model["levels"]["1"]["p99_ms"]["median"]
        assert model["levels"]["32"]["throughput"]["median"] > 0
    assert content["gains_over_teacher"]["small"]["item_bytes"] == 2
    lines = [" ".join(line.split()) for line in (tmp_path / "bench.md").read_text().splitlines()]
    assert "| bytes an item, in the index | 64 | 32 | 32 | 32 |" in lines
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nobody", "--against", "big"], "nobody"),
        (["--model", "big", "--against", "big"], "name two models"),
        (["--model", "small"], "name one by --model and its teacher by --against"),
        (["--against", "big"], "name one by --model and its teacher by --against"),
    ],
)
def test_models_that_cannot_be_compared(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    out = tmp_path / "out"
    assert lowpass.main(["bench", "--repository", str(models), *words, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.usefixtures("no_child_processes")
def test_ready_answers_are_compared_only_when_asked_for(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["bench", "--repository", str(models), "--against", "big", "--model", "ready", "--no-rivals"]
    command += ["--out", str(tmp_path), *QUICK]
    assert lowpass.main(command) == 2
    assert "ready: answers from a table made at export" in capsys.readouterr().err
    assert lowpass.main([*command, "--answer-tables"]) == 0
    said = capsys.readouterr().out
    content = json.loads((tmp_path / "bench.json").read_text())
    assert [model["answer_table"] for model in content["models"]] == [0, 20]
    report = (tmp_path / "bench.md").read_text()
    assert "| ready answers a user, looked up instead | 0 | 20 |" in " ".join(report.split())
    assert "Answered from tables made at export, without a search: ready." in report
    *table, finding, _, written = said.splitlines()
    assert [line.split("  ")[0] for line in table[2:7]] == [
        "quality kept", "bytes an item", "search time", "answers/s a core", "server memory",
    ]  # fmt: skip
    assert report.startswith(f"# {finding.rstrip('.')}\n")
    assert written.startswith(f"written: {tmp_path}")
