"""A spec is read whole or refused whole: each fault with its place, and all at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from distill.training.job import build_job
from export.build.publish import ExportOptions
from jobs.errors import SpecError
from jobs.spec.reading import load_spec
from jobs.spec.sections import GateSpec
from tests.jobs.toy import write_job

LEAST = '[data]\nsource = "x.csv"\n[publish]\nrepository = "models"\n'


def write(folder: Path, text: str) -> Path:
    (folder / "x.csv").write_text("user_id,item_id\nu,i\n")
    path = folder / "job.toml"
    path.write_text(text)
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    return [line.removeprefix(f"{path}: ") for line in lines]


def test_what_a_spec_does_not_say_is_as_the_commands_have_it(tmp_path: Path) -> None:
    spec = load_spec(write(tmp_path, 'name = "shop"\n' + LEAST))
    assert spec.teacher.build() == build_job("scratch", {"dim": 64})
    assert spec.student.build() == build_job("ce+rcekd", {"dim": 20})
    assert spec.student.build().co_teachers == "auto"
    assert spec.export == ExportOptions()
    assert (spec.gate, spec.model, spec.publish.label, spec.keep_runs) == (GateSpec(), "shop", "stable", 7)


def test_paths_are_relative_to_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, 'name = "shop"\ndirectory = "../runs"\n' + LEAST + '[metrics]\ntextfile = "shop.prom"\n')
    monkeypatch.chdir("/")
    spec = load_spec(path)
    assert spec.data.source == tmp_path / "x.csv"
    assert spec.publish.repository == str(tmp_path / "models")
    assert spec.folder == tmp_path / "../runs/shop"
    assert spec.metrics.textfile == tmp_path / "shop.prom"


def test_settings_of_a_part_are_a_table(tmp_path: Path) -> None:
    text = 'name = "shop"\n' + LEAST + "[student]\nepochs = 3\n[student.ce]\ntemperature = 2.0\n"
    job = load_spec(write(tmp_path, text)).student.build()
    assert job.options.epochs == 3
    assert job == build_job("ce+rcekd", {"dim": 20, "epochs": 3, "ce.temperature": 2.0})


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (('name = "toy"', 'name = "a b"'), "name: 'a b' is no name of a job"),
        (('name = "toy"', 'name = "toy"\ncolour = 1'), "colour: no such setting; a spec has name, directory"),
        (('name = "toy"', 'name = "toy"\nkeep_runs = 0'), "keep_runs: 0 is no number of runs; give 1 or more"),
        (('name = "toy"', 'name = "toy"\ndirectory = "interactions.csv"'), "directory: "),
        (('name = "toy"', 'name = "toy"\nmetrics = 3'), "metrics: is a value, not a section; write [metrics]"),
        (('"interactions.csv"', '"nowhere.csv"'), "data.source: "),
        (('source = "interactions.csv"', ""), "data.source: is missing; give it"),
        (('split = "ordered"', 'split = "weekly"'), "data.split: 'weekly' is none; give one of auto, ready"),
        (('split = "ordered"', 'format = "xls"'), "data.format: 'xls' is none; give one of "),
        (('split = "ordered"', "ratios = [0, 1, 1]"), "data.ratios: [0, 1, 1]: give three whole numbers"),
        (('split = "ordered"', 'user_minimum = "many"'), "data.user_minimum: 'many' does not fit"),
        (('split = "ordered"', "colour = 1"), "data.colour: no such setting; it has "),
        (("dim = 16", "dim = 0"), "teacher.dim: 0 is below 1"),
        (("dim = 16", "lr = 3"), "teacher.lr: no such setting; it has dim, epochs, "),
        (("dim = 16", 'method = "ce"'), "teacher.method: a teacher learns from no teacher"),
        (("dim = 16", 'tensorboard = "x"'), "teacher.tensorboard: no such setting"),
        (("dim = 16", "[teacher.import]"), "teacher.import.users: is missing; give it"),
        (('method = "ce"', 'method = "frqd"'), "student.method: 'frqd' is not one of "),
        (('method = "ce"', 'method = "scratch"'), "student.method: 'scratch' learns from no teacher"),
        (('method = "ce"', 'method = "ce"\nstart = "runs/x"'), "student.start: 'runs/x': give random or svd"),
        (('method = "ce"', 'method = "ce"\nstep_share = 2'), "student.step_share: no such setting"),
        (('co_teachers = "none"', 'co_teachers = "nobody"'), "student"),
        (("budget = 0", "budget = -1"), "export.budget: -1"),
        (("budget = 0", 'dtype = "int4"'), "export.dtype: 'int4' does not fit"),
        (("budget = 0", "label = 'x'"), "export.label: no such setting"),
        (('repository = "models"', 'repository = "interactions.csv"'), "publish.repository: "),
        (('repository = "models"', 'repository = "ftp://models"'), "publish.repository: 'ftp' is no kind"),
        (('repository = "models"', 'repository = "models"\nlabel = "Stable"'), "publish.label: label 'Stable'"),
        (('repository = "models"', 'repository = "models"\nmodel = "../x"'), "publish.model: model '../x': names"),
        (("kept_ndcg = 0.5", "kept_ndcg = true"), "gate.kept_ndcg: True is no bound; give a number"),
        (("kept_ndcg = 0.5", "kept_ndcg = nan"), "gate.kept_ndcg: nan is no bound"),
        (("kept_ndcg = 0.5", "speed = 1"), "gate.speed: no such setting; it has kept_ndcg, "),
    ],
)  # fmt: skip
def test_a_fault_is_told_with_its_place(tmp_path: Path, change: tuple[str, str], fault: str) -> None:
    found = faults(write_job(tmp_path, change))
    assert any(line.startswith(fault) for line in found), found


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ('[metrics]\ntextfile = "x.txt"\n', "metrics.textfile: "),
        ('[metrics]\ntextfile = "nowhere/x.prom"\n', "metrics.textfile: "),
        ('[metrics]\npushgateway = "http://me:secret@host"\n', "metrics.pushgateway: holds a user or a password"),
        ('[metrics]\npushgateway = "host:9091"\n', "metrics.pushgateway: 'host:9091' is no address"),
        ('[mlflow]\nexperiment = "x"\n', "mlflow.uri: is missing; give it"),
        ('[mlflow]\nuri = "file:///x"\n', "mlflow.uri: 'file:///x' is no address"),
    ],
)
def test_faults_of_what_is_optional(tmp_path: Path, more: str, fault: str) -> None:
    (line,) = faults(write_job(tmp_path, more=more))
    assert line.startswith(fault)
    assert "secret" not in line


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    changes = (
        ('"interactions.csv"', '"nowhere.csv"'),
        ("dim = 16\nepochs = 4", 'dim = 0\nepochs = "x"'),
        ("dim = 8", "dim = -1"),
        ("budget = 0", "budget = -1\nann_recall = 2"),
        ("kept_ndcg = 0.5", "kept_ndcg = -1"),
    )
    places = [line.partition(": ")[0] for line in faults(write_job(tmp_path, *changes))]
    models = ["teacher.dim", "teacher.epochs", "student.dim"]
    assert sorted(places) == sorted([*models, "data.source", "export.ann_recall", "export.budget", "gate.kept_ndcg"])


def test_settings_that_fit_only_together_are_no_fault(tmp_path: Path) -> None:
    changes = ("dim = 8", "dim = 8\npatience = 300"), ("epochs = 4\neval_every = 2\nco", "eval_every = 200\nco")
    spec = load_spec(write_job(tmp_path, *changes))
    assert spec.student.build().options.eval_every == 200


def test_a_spec_that_cannot_be_read_is_told_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nowhere\.toml: cannot be read"):
        load_spec(tmp_path / "nowhere.toml")
    with pytest.raises(SpecError, match=r"job\.toml: is not TOML .*line 1"):
        load_spec(write(tmp_path, "name = toy"))


def test_going_on_from_yesterday_needs_a_training_that_can(tmp_path: Path) -> None:
    path = write_job(tmp_path, ("dim = 16", "dim = 16\ncontinue = true"))
    assert load_spec(path).teacher.continued
    assert not load_spec(path).student.continued
    (line,) = faults(write_job(tmp_path, ("dim = 16", 'dim = 16\nbackbone = "lightgcn"\ncontinue = true')))
    assert line.startswith("teacher.continue: 'lightgcn' makes its embeddings of a table")
    assert line.endswith("take a backbone that can go on: bprmf, ials")
    (line,) = faults(write_job(tmp_path, ("dim = 16", 'dim = 16\ncontinue = "yes, please"')))
    assert line == "teacher.continue: 'yes, please' is neither true nor false"
