from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import lowpass
from export.commands.export import bundle, export, label, rivals


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert lowpass.main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(capsys, *words, "--json"))
    return found


def test_the_whole_way(workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = tmp_path / "models"
    where = ("--data", workplace / "data", "--repository", models)
    teacher = as_json(capsys, "export", workplace / "teacher", *where, "--model", "teacher")
    assert (teacher["model"]["name"], teacher["model"]["version"]) == ("teacher", "1")
    student = as_json(capsys, "export", workplace / "student", *where, "--model", "student")
    assert 0 < student["quality"]["kept_recall"] <= 2
    made = as_json(capsys, "rivals", "--repository", models, "--teacher", "teacher", "--dim", 4)
    assert [entry["model"]["name"] for entry in made["bundles"]] == ["teacher-svd4", "teacher-pq16"]
    assert as_json(capsys, "label", "show", "--repository", models)["student"]["labels"] == {"stable": "1"}
    again = as_json(capsys, "export", workplace / "student", *where, "--model", "student", "--label", "canary")
    assert again["model"]["version"] == "2"
    moved = as_json(capsys, "label", "set", "--repository", models, "student", "stable", "canary")
    assert moved["labels"] == {"canary": "2", "previous": "1", "stable": "2"}
    assert as_json(capsys, "bundle", "verify", student["path"])["bundle_id"] == student["bundle_id"]
    assert as_json(capsys, "bundle", "inspect", student["path"]) == student


def test_for_people(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = workplace / "models" / "student" / "1"
    shown = run(capsys, "bundle", "inspect", path)
    assert "student version 1" in shown
    assert "item_embeddings.npy" in shown
    assert "kept_recall" in shown
    assert "recall  median µs  bytes/item" in shown
    assert "* Flat " in shown
    assert "HNSW16_SQ8 efSearch=32 k_factor=2" in shown
    assert "ready for every user" not in shown
    assert "good" in run(capsys, "bundle", "verify", path)
    assert run(capsys, "label", "show", "--repository", workplace / "models").splitlines() == [
        "student: versions 1; no labels",
        "teacher: versions 1; no labels",
    ]


def test_an_older_manifest_and_a_skipped_index_are_shown(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old"
    shutil.copytree(workplace / "models" / "student" / "1", old)
    document = json.loads((old / "manifest.json").read_bytes())
    document["index"]["candidates"] = [
        {"factory": "Flat", "search": {}, "ann_recall": 1.0, "median_us": 7.5},
        {"factory": "HNSW32", "search": {}, "skipped": "would take 900 s to build"},
    ]
    (old / "manifest.json").write_text(json.dumps(document))
    shown = run(capsys, "bundle", "inspect", old).splitlines()
    assert [line.split() for line in shown if "Flat  " in line or "HNSW32" in line] == [
        ["Flat", "1.0", "7.5"],
        ["HNSW32", "not", "built:", "would", "take", "900", "s", "to", "build"],
    ]


def test_bounds_and_tables_are_options(workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--data", workplace / "data", "--repository", tmp_path, "--model", "student", "--label", "")
    command = ["export", workplace / "student", *where, "--max-index-bytes-per-item"]
    assert lowpass.main([str(word) for word in (*command, "0.5")]) == 2
    assert "max_index_bytes_per_item 0.5" in capsys.readouterr().err
    made = as_json(capsys, *command, "1000", "--answer-table", 7)
    assert made["files"]["answer_rows.npy"]["shape"][1] == 7
    assert "7 items ready for every user" in run(capsys, "bundle", "inspect", made["path"])


def test_a_bad_bundle_is_the_users_fault_in_one_line(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(workplace / "models" / "student" / "1", bad)
    (bad / "popularity.npy").unlink()
    assert lowpass.main(["bundle", "verify", str(bad)]) == 2
    complaint = capsys.readouterr().err.splitlines()
    assert len(complaint) == 1
    assert "popularity.npy" in complaint[0]


@pytest.mark.parametrize(
    "command", [export, rivals, bundle, label, *bundle.commands.values(), *label.commands.values()]
)
def test_every_help_has_an_example(command: click.Command) -> None:
    assert command.help is not None
    assert "Example: lowpass " in command.help


def test_bundle_idtable_and_repository_need_only_numpy() -> None:
    """Law 1: what `serve` imports of this package must not bring anything heavy along."""
    program = (
        "import sys, export.bundle, export.idtable, export.repository;"
        "print(sorted({'torch', 'scipy', 'onnx', 'onnxruntime', 'faiss', 'distill', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_commands_import_nothing_heavy_before_they_run() -> None:
    program = "import sys, export.cli; print('torch' in sys.modules or 'faiss' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
