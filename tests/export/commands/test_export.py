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
from export.bundle import BundleError, MissingFile, ModelRepository, NotABundle, UnknownLabel
from export.bundle.description import describe_versions
from export.commands.export import export
from export.commands.models import show, verify


def run(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert lowpass.main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def as_json(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(capsys, *words, "--json"))
    return found


def ask(capsys: pytest.CaptureFixture[str], command: click.Command, *words: object) -> str:
    """What a subcommand of `models` prints."""
    command.main([str(word) for word in words], standalone_mode=False)
    return capsys.readouterr().out


def test_the_whole_way(workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = tmp_path / "models"
    where = ("--data", workplace / "data", "--repository", models)
    teacher = as_json(capsys, "export", workplace / "teacher", *where, "--model", "teacher")
    assert (teacher["model"]["name"], teacher["model"]["version"]) == ("teacher", "1")
    student = as_json(capsys, "export", workplace / "student", *where, "--model", "student")
    assert 0 < student["quality"]["kept_recall"] <= 2
    made = as_json(capsys, "export", "--rivals", 4, "--teacher", "teacher", "--repository", models)
    assert [entry["model"]["name"] for entry in made["bundles"]] == ["teacher-pq16", "teacher-svd4"]
    repository = ModelRepository(models)
    assert repository.labels("student") == {"stable": "1"}
    again = as_json(capsys, "export", workplace / "student", *where, "--model", "student", "--label", "canary")
    assert again["model"]["version"] == "2"
    repository.set_label("student", "stable", "canary")
    assert repository.labels("student") == {"canary": "2", "previous": "1", "stable": "2"}
    named = ("--repository", models, "student:1")
    assert json.loads(ask(capsys, verify, *named, "--json"))["bundle_id"] == student["bundle_id"]
    assert json.loads(ask(capsys, show, *named, "--json")) == student
    assert json.loads(ask(capsys, show, student["path"], "--json")) == student


def test_for_people(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = workplace / "models" / "student" / "1"
    shown = ask(capsys, show, "--repository", workplace / "models", "student")
    assert ask(capsys, show, path) == shown
    assert "student version 1" in shown
    assert "item_embeddings.npy" in shown
    assert "kept_recall" in shown
    assert "recall    median µs    bytes/item" in shown
    assert "* Flat " in shown
    assert "HNSW16_SQ8 efSearch=32 k_factor=2" in shown
    assert "ready for every user" not in shown
    assert "good" in ask(capsys, verify, path)
    assert describe_versions(ModelRepository(workplace / "models").overview()) == [
        "student: versions 1; no labels",
        "teacher: versions 1; no labels",
    ]


def test_names_that_lead_to_no_bundle(workplace: Path, tmp_path: Path) -> None:
    for command in (show, verify):
        with pytest.raises(UnknownLabel, match="canary"):
            command.main(["--repository", str(workplace / "models"), "student:canary"], standalone_mode=False)
        with pytest.raises(NotABundle, match="give a bundle's directory, or --repository and a model"):
            command.main([str(tmp_path)], standalone_mode=False)


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
    shown = ask(capsys, show, old).splitlines()
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
    assert "7 items ready for every user" in ask(capsys, show, made["path"])


def test_a_bad_bundle_is_the_users_fault_in_one_line(workplace: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(workplace / "models" / "student" / "1", bad)
    (bad / "popularity.npy").unlink()
    with pytest.raises(MissingFile) as caught:
        verify.main([str(bad)], standalone_mode=False)
    assert isinstance(caught.value, BundleError)
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) == 1
    assert "popularity.npy" in str(caught.value)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--model", "m"], "SOURCE: give a run or a frontier directory, or --rivals DIM --teacher MODEL"),
        (["{run}", "--data", "{data}"], "--model: give the name"),
        (["{run}", "--model", "m"], "--data: give the data directory on which the run {run} was trained"),
        (
            ["{run}", "--model", "m", "--data", "{data}", "--label", "Stable"],
            "label 'Stable': must be a lower-case word",
        ),
        (["{run}", "--model", "m", "--data", "{data}", "--teacher", "{data}"], "{data}: no finished run there"),
        (["--rivals", "4"], "--teacher: give the name of the teacher's model"),
        (["--rivals", "4", "--teacher", "t", "--model", "m"], "--model: has no effect here, since rivals are made of"),
        (["{run}", "--rivals", "4", "--teacher", "t"], "SOURCE: has no effect here"),
        (["--rivals", "4", "--teacher", "absent"], "no model 'absent'"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], complaint: str
) -> None:
    places = {"run": workplace / "student", "data": workplace / "data"}
    given = [word.format(**places) for word in words]
    assert lowpass.main(["export", *given, "--repository", str(tmp_path / "models")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lowpass: error: ")
    assert error.count("\n") == 1
    assert complaint.format(**places) in error
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("command", [export, show, verify])
def test_every_help_has_an_example(command: click.Command) -> None:
    assert command.help is not None
    assert "Example: lowpass " in command.help


def test_bundle_idtable_and_repository_need_only_numpy() -> None:
    """Law 1: what `serve` imports of this package must not bring anything heavy along."""
    program = (
        "import sys, export, export.bundle, export.bundle.description;"
        "print(sorted({'torch', 'scipy', 'onnx', 'onnxruntime', 'faiss', 'distill', 'click'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_verifying_needs_no_distill() -> None:
    program = "import sys, export.build.verify; print(sorted({'torch', 'scipy', 'distill'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_commands_import_nothing_heavy_before_they_run() -> None:
    program = (
        "import sys, export.commands.export, export.commands.frontier, export.commands.models;"
        "print('torch' in sys.modules or 'faiss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_users_in_shards(workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("export", workplace / "student", "--data", workplace / "data", "--model", "student", "--user-shards", 2)
    made = as_json(capsys, *words, "--repository", tmp_path, "--answer-table", 3)["bundles"]
    assert [entry["user_shard"] for entry in made] == [{"shard": 0, "of": 2}, {"shard": 1, "of": 2}]
    assert [Path(entry["path"]) for entry in made] == [tmp_path / f"shard-{k}-of-2" / "student" / "1" for k in (0, 1)]
    whole = json.loads(ask(capsys, show, workplace / "models" / "student" / "1", "--json"))
    assert made[0]["quality"] == made[1]["quality"] == whole["quality"]
    assert sum(entry["counts"]["users"] for entry in made) == 120
    printed = run(capsys, *words, "--repository", tmp_path).splitlines()
    assert "users (shard 0 of 2), 90 items" in printed[2]
    assert any("of all shards together" in line for line in printed)
    assert printed[-2].startswith(f"2 shards in {tmp_path}, each of ")
    assert printed[-1].endswith("on this disk: index and ids of the items are hard links")
    assert ModelRepository(tmp_path / "shard-1-of-2").labels("student") == {"stable": "2", "previous": "1"}


def test_a_repository_in_an_object_store(workplace: Path, bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--repository", bucket)
    said = run(capsys, "export", workplace / "student", "--data", workplace / "data", *where, "--model", "student")
    assert f"published as {bucket}/student/1" in said
    again = ("--data", workplace / "data", *where, "--model", "student", "--label", "canary")
    made = as_json(capsys, "export", workplace / "student", *again)
    assert made["model"]["version"] == "2"
    shown = as_json(capsys, "models", "show", "student:canary", *where)
    assert shown == {**made, "path": f"{bucket}/student/2"}
    assert f"{bucket}/student/2: good. " in run(capsys, "models", "verify", "student:2", *where)
    run(capsys, "models", "label", "student", "stable", "canary", *where)
    (first, second) = as_json(capsys, "models", "rollback", "student", *where)["versions"]
    assert (first["labels"], second["labels"]) == (["stable"], ["canary", "previous"])
    assert "student:1" in run(capsys, "models", "list", *where)
    sharded = ("--model", "student", "--user-shards", "2", "--data", str(workplace / "data"))
    assert lowpass.main(["export", str(workplace / "student"), *where, *sharded]) == 2
    assert "--user-shards: all shards move together in a directory" in capsys.readouterr().err
