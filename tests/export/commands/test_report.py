from __future__ import annotations

import json
from pathlib import Path

import pytest

import lowpass
from tests.distill.report.invented import Gallery, build_gallery, invent_analysis
from tests.export.frontier.test_reading import write_frontier


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return build_gallery(tmp_path_factory.mktemp("gallery"))


def test_the_report_is_one_file(gallery: Gallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frontier = write_frontier(tmp_path / "frontier.json", gallery.data.fingerprint)
    analysis = invent_analysis(tmp_path / "analysis.json", "toy", ["scratch"])
    target = tmp_path / "pages" / "report.html"
    words = ["report", *map(str, gallery.students), "--out", str(target), "--data", str(gallery.folder / "data")]
    assert lowpass.main([*words, "--frontier", str(frontier), "--analysis", str(analysis), "--title", "Mine"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{target}: 0.")
    assert "4 runs: Quality, Are the differences more than chance?, Learning" in printed
    assert "left out" not in printed
    assert [path.name for path in target.parent.iterdir()] == ["report.html"]
    assert "<h1>Mine</h1>" in target.read_text(encoding="utf-8")


def test_what_is_missing_is_told_in_words_and_as_json(
    gallery: Gallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", str(gallery.scratch.path), "--out", str(tmp_path / "a.html")]
    assert lowpass.main(words) == 0
    assert "left out: The frontier; run 'lowpass frontier" in capsys.readouterr().out
    assert lowpass.main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["report"] == str(tmp_path / "a.html")
    assert answer["sections"] == ["Quality", "Learning", "Popularity", "Settings"]
    assert "--analysis" in answer["left_out"]["Frequencies"]
    assert "<h1>Distillation on toy</h1>" in (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--analysis", "nothing.json"), "nothing.json: unreadable"),
        (("--frontier", "nothing.json"), "nothing.json: unreadable"),
        (("--data", "nowhere"), "nowhere"),
    ],
)
def test_the_users_mistakes_are_named(
    gallery: Gallery, tmp_path: Path, more: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["report", str(gallery.scratch.path), "--out", str(tmp_path / "a.html"), *more]
    assert lowpass.main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not (tmp_path / "a.html").exists()


def test_a_frontier_is_given_as_its_directory_and_must_be_about_the_same_data(
    gallery: Gallery, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_frontier(tmp_path / "frontier.json", gallery.data.fingerprint)
    words = ["report", str(gallery.scratch.path), "--out", str(tmp_path / "a.html"), "--frontier", str(tmp_path)]
    assert lowpass.main(words) == 0
    assert "<h2>The frontier</h2>" in (tmp_path / "a.html").read_text(encoding="utf-8")
    capsys.readouterr()
    write_frontier(tmp_path / "frontier.json", "other")
    assert lowpass.main(words) == 2
    assert "--frontier: is about other data than the runs; run 'lowpass frontier' on theirs" in capsys.readouterr().err
