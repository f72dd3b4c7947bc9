from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import lowpass
from distill.data.interactions import Interactions, save_interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from distill.run import write_run


def invent_run(path: Path, data: Interactions, dim: int, recall: float | None) -> None:
    rng = np.random.default_rng(dim)
    config = {"backbone": "bprmf", "method": "scratch", "dim": dim, "data": {"fingerprint": data.fingerprint}}
    metrics = {} if recall is None else {"test": {"Recall@20": recall}}
    users, items = (rng.normal(size=(rows, dim)).astype(np.float32) for rows in (data.num_users, data.num_items))
    write_run(path, config, users, items, metrics)


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road")
    data = synthesize(SyntheticOptions(num_users=60, num_items=50, num_clusters=6, mean_interactions=10))
    save_interactions(data, folder / "data")
    invent_run(folder / "teacher", data, 12, None)
    for name, dim, recall in (("small", 2, 0.1), ("big", 6, 0.2), ("other/small", 3, 0.15)):
        invent_run(folder / name, data, dim, recall)
    return folder


def arguments(road: Path, *more: str) -> list[str]:
    runs = [str(road / "small"), str(road / "big")]
    return ["analyze", str(road / "data"), "--teacher", str(road / "teacher"), *runs, *more]


@pytest.mark.parametrize("graph", ["bipartite", "cooccurrence"])
@pytest.mark.parametrize("grouping", ["equal-width", "equal-count"])
def test_tables_numbers_and_figures_agree(
    road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], graph: str, grouping: str
) -> None:
    options = ["--graph", graph, "--groups", grouping, "--bands", "7", "--out", str(tmp_path)]
    assert lowpass.main(arguments(road, *options)) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads((tmp_path / "analysis.json").read_text(encoding="utf-8"))
    assert {path.name for path in tmp_path.iterdir()} == {"analysis.json", "loss.png", "spectrum.png", "kept.png"}
    assert (report["graph"], report["grouping"], report["basis"]) == (graph, grouping, "exact")
    assert [student["run"] for student in report["students"]] == ["small", "big"]
    for line, student in zip(lines[2:4], report["students"], strict=True):
        assert line.split("|")[5].strip() == f"{student['kept_in_all']:.1%}"
        energies = report["teacher"]["energies"]
        assert student["kept_in_all"] == pytest.approx(1 - sum(student["losses"]) / sum(energies))
    assert len([line for line in lines[7:] if line.startswith("| ")]) == len(report["groups"]) == 7


def test_json_prints_one_object_and_writes_nothing(
    road: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert lowpass.main(arguments(road, "--json")) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["groups"]) == 21
    assert [student["Recall@20"] for student in report["students"]] == [0.1, 0.2]
    assert not list(tmp_path.iterdir())


def test_a_large_graph_takes_bands_and_refuses_equal_counts(
    road: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("distill.graph.analysis.MAX_ENTITIES", 100)
    monkeypatch.setattr("distill.graph.spectrum.MAX_ENTITIES", 100)
    assert lowpass.main(arguments(road, "--json")) == 0
    assert json.loads(capsys.readouterr().out)["basis"] == "chebyshev"
    assert lowpass.main(arguments(road, "--groups", "equal-count")) == 2
    assert capsys.readouterr().err.startswith("lowpass: error: spectrum: 110 entities exceed the 100 of an exact")


def test_entities_without_an_edge_are_mentioned(
    tmp_path: Path, checkerboard: Interactions, capsys: pytest.CaptureFixture[str]
) -> None:
    lonely = Interactions(
        "lonely", checkerboard.user_ids, checkerboard.item_ids, checkerboard.train * 0, *[checkerboard.test] * 2
    )
    lonely.train.eliminate_zeros()
    save_interactions(lonely, tmp_path / "data")
    for name in ("teacher", "student"):
        invent_run(tmp_path / name, lonely, 3, None)
    runs = ["--teacher", str(tmp_path / "teacher"), str(tmp_path / "student")]
    assert lowpass.main(["analyze", str(tmp_path / "data"), *runs]) == 0
    assert capsys.readouterr().out.endswith("\n48 of 48 entities have no edge: they stand at frequency 1\n")


def test_runs_of_one_name_are_told_apart_by_path(road: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lowpass.main(arguments(road, str(road / "other" / "small"), "--json")) == 0
    names = [student["run"] for student in json.loads(capsys.readouterr().out)["students"]]
    assert names == [str(road / name) for name in ("small", "big", "other/small")]


def test_a_run_on_other_data_is_refused(
    road: Path, tmp_path: Path, checkerboard: Interactions, capsys: pytest.CaptureFixture[str]
) -> None:
    invent_run(tmp_path / "foreign", checkerboard, 3, None)
    assert lowpass.main(arguments(road, str(tmp_path / "foreign"))) == 2
    assert "foreign/config.json: data.fingerprint is not that of" in capsys.readouterr().err
