"""The frontier from the command line, on invented data: train, measure, choose, export, and the ways to go wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lowpass
from distill.data.interactions import load_interactions, save_interactions
from distill.evaluation.protocol import Protocol, evaluate
from distill.run import open_run
from export.build.ann import open_index
from export.build.quality import as_csr
from export.build.questions import Latency, draw_questions, measure_recall
from export.build.verify import verify_bundle
from export.bundle import ModelRepository, open_bundle
from export.frontier import measuring
from tests.export.toy import toy_interactions, toy_run

CO_TEACHERS = ("--co-teachers", "itemknn=0.5")
QUICK = (*CO_TEACHERS, "--methods", "scratch,ce", "--dims", "4", "--epochs", "2", "--baselines", "popularity")


def arguments(workplace: Path, out: Path, *more: str) -> list[str]:
    return [
        "frontier",
        str(workplace / "data"),
        "--teacher",
        str(workplace / "teacher"),
        "--out",
        str(out),
        *QUICK,
        *more,
    ]


@pytest.fixture(scope="module")
def place(workplace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished frontier. Not to be changed."""
    out = tmp_path_factory.mktemp("frontier") / "out"
    assert lowpass.main(arguments(workplace, out, "--min-kept", "0.3", "--max-bytes-per-item", "60")) == 0
    return out


def read(out: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((out / "frontier.json").read_text(encoding="utf-8"))
    return document


def read_error(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lowpass: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_it_leaves_the_numbers_the_page_the_plot_and_the_runs(place: Path) -> None:
    assert sorted(path.name for path in place.iterdir()) == ["frontier.json", "frontier.md", "frontier.png", "runs"]
    assert (place / "frontier.png").read_bytes().startswith(b"\x89PNG")
    document = read(place)
    names = [row["name"] for row in document["candidates"]]
    assert names[0] == document["teacher"]["candidate"] == "teacher-float32"
    assert {"teacher-pq4", "svd-d4-int8", "scratch-d4-float16", "ce-d4-int8", "popularity"} <= set(names)
    assert document["settings"]["training"] == {"epochs": 2, "max_seconds": None, "seed": 0}
    taught = {row["name"]: row["taught_by"] for row in document["candidates"]}
    assert (taught["ce-d4-int8"], taught["scratch-d4-int8"]) == ("teacher + 0.5 itemknn", None)
    assert document["notes"][0].startswith("A blend: teacher + 0.5 itemknn (num_neighbors ")
    page = (place / "frontier.md").read_text(encoding="utf-8")
    assert all(f"| {name} " in page for name in names)


def test_what_is_written_is_what_evaluate_finds(place: Path, workplace: Path) -> None:
    data, teacher = load_interactions(workplace / "data"), open_run(workplace / "teacher")
    rows = {row["name"]: row for row in read(place)["candidates"]}
    for name, run in (("teacher-float32", teacher), ("ce-d4-float32", open_run(place / "runs" / "ce-d4"))):
        for split in ("validation", "test"):
            protocol = Protocol(split="validation" if split == "validation" else "test")
            report = evaluate(run.user_embeddings, run.item_embeddings, data, protocol)
            assert rows[name][split]["Recall@20"] == pytest.approx(report.metrics["Recall@20"], abs=1e-6)
    student, reference = (rows[name]["validation"]["Recall@20"] for name in ("ce-d4-float32", "teacher-float32"))
    assert rows["ce-d4-float32"]["kept"] == pytest.approx(student / reference, abs=1e-4)


def test_with_other_limits_nothing_is_trained_and_the_choice_follows(
    place: Path, workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(place, out)
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    assert lowpass.main(arguments(workplace, out, "--min-kept", "0.3", "--max-bytes-per-item", "6", "--json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == read(out)
    chosen = next(row for row in document["candidates"] if row["name"] == document["recommended"])
    assert chosen["bytes_per_item"] <= 6
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")} == before


def test_where_nothing_fits_it_says_what_to_relax_and_is_no_failure(
    place: Path, workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place, tmp_path / "out")
    assert lowpass.main(arguments(workplace, tmp_path / "out", "--max-bytes-per-item", "1")) == 0
    text = capsys.readouterr().out
    assert text.startswith("Nothing is within the limits: at least 95.0 %")
    assert "would admit `" in text
    assert read(tmp_path / "out")["recommended"] is None
    command = ["export", str(tmp_path / "out"), "--repository", str(tmp_path / "models"), "--model", "m"]
    assert lowpass.main(command) == 2
    assert "recommends nothing" in read_error(capsys)


def test_a_run_from_elsewhere_stands_beside(workplace: Path, tmp_path: Path) -> None:
    data = load_interactions(workplace / "data")
    toy_run(tmp_path / "mine", data, 6)
    options = ("--run", str(tmp_path / "mine"), "--methods", "scratch", "--precisions", "int8", "--baselines", "")
    assert lowpass.main(arguments(workplace, tmp_path / "out", *options)) == 0
    names = {row["name"] for row in read(tmp_path / "out")["candidates"]}
    assert {"mine-int8", "svd-d6-int8", "svd-d4-int8", "teacher-pq6", "scratch-d4-int8"} <= names
    assert not names & {"popularity", "scratch-d4-float32"}


@pytest.mark.parametrize("name", [None, "teacher-pq4", "svd-d4-int8", "ce-d4-float16", "teacher-float32"])
def test_any_candidate_becomes_a_bundle_with_the_vectors_that_were_measured(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str | None
) -> None:
    words = [str(place), *(["--candidate", name] if name else [])]
    assert lowpass.main(["export", *words, "--repository", str(tmp_path), "--model", "small", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    document = read(place)
    row = next(row for row in document["candidates"] if row["name"] == (name or document["recommended"]))
    assert (answer["path"], answer["candidate"]) == (str(tmp_path / "small" / "1"), row["name"])
    verify_bundle(tmp_path / "small" / "1")
    bundle = open_bundle(tmp_path / "small" / "1")
    card = bundle.manifest.index
    assert (card.factory, card.search, card.bytes_per_item) == (row["index"]["factory"], {}, row["code_bytes"])
    assert bundle.user_embeddings.dtype.itemsize * row["dim"] == row["bytes_per_user"]
    data = load_interactions(Path(document["data"]["path"]))
    users, items = (np.array(values, np.float32) for values in (bundle.user_embeddings, bundle.item_embeddings))
    report = evaluate(users, items, data, Protocol(split="test"))
    assert row["test"]["Recall@20"] == pytest.approx(report.metrics["Recall@20"], abs=1e-6)
    assert bundle.manifest.quality["teacher_recall@20"] > 0


@pytest.mark.parametrize(("factory", "search"), [("HNSW16", {"efSearch": 64}), ("SQ8", {"k_factor": 2})])
def test_an_index_that_is_no_scan_is_exported_with_its_search_setting(
    place: Path, tmp_path: Path, factory: str, search: dict[str, int]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(place, out)
    document = read(out)
    row = next(row for row in document["candidates"] if row["name"] == "ce-d4-float32")
    row["index"] = {"factory": factory, "search": search, "ann_recall": 1.0}
    (out / "frontier.json").write_text(json.dumps(document), encoding="utf-8")
    words = ["export", str(out), "--candidate", "ce-d4-float32", "--repository", str(tmp_path / "m"), "--model", "g"]
    assert lowpass.main(words) == 0
    card = open_bundle(tmp_path / "m" / "g" / "1").manifest.index
    assert (card.factory, card.search) == (factory, search)
    assert card.candidates[0]["median_us"] == row["latency_us"]["p50"]


def test_what_a_row_says_is_what_its_bundle_does(
    workplace: Path, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A candidate under another index than a scan, measured by the judge, exported, and measured again."""
    monkeypatch.setattr(measuring, "SLOW_US", 0.0)
    monkeypatch.setattr(measuring.Judge, "time_scan", lambda *_: Latency(1e6, 1e6))
    out = tmp_path / "out"
    shutil.copytree(place, out)
    assert lowpass.main(arguments(workplace, out, "--min-kept", "0.3")) == 0
    scans = {row["name"] for row in read(place)["candidates"]}
    row = next(row for row in read(out)["candidates"] if row["name"] not in scans)
    words = ["export", str(out), "--candidate", row["name"], "--repository", str(tmp_path / "m"), "--model", "m"]
    assert lowpass.main(words) == 0
    bundle = open_bundle(tmp_path / "m" / "m" / "1")
    card = bundle.manifest.index
    assert (card.factory, card.search, card.bytes_per_item) == (
        row["index"]["factory"], row["index"]["search"], row["code_bytes"],
    )  # fmt: skip
    items, had = np.array(bundle.item_embeddings, np.float32), as_csr(bundle.seen_indptr, bundle.seen_indices, 90)
    questions = draw_questions(bundle.user_embeddings, had, np.random.default_rng(0))
    index = open_index(bundle.index_path, len(items), items.shape[1])
    found, _ = questions.answer(index, card.search, items)
    recall = measure_recall(found, questions.answer_exactly(items))
    assert recall == pytest.approx(row["index"]["ann_recall"], abs=1e-6)
    rescored = items.shape[1] * 4 if "k_factor" in card.search else 0
    assert row["bytes_per_item"] == pytest.approx(bundle.index_path.stat().st_size / len(items) + rescored, abs=1)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "freqd,magic"], "method: 'magic' is not one of"),
        (["--dims", "4,16"], "dims: 16 must be from 1 to below the teacher's 16"),
        (["--dims", "4,x"], "dims: '4,x' is not a list such as 8,16,32"),
        (["--precisions", "int4"], "precisions: 'int4' is not one of"),
        (["--baselines", "oracle"], "baselines: 'oracle' is not one of"),
        (["--backbone", "abacus"], "backbone: 'abacus' is not one of"),
        (["--max-p99-ms", "0"], "max_p99_ms: 0.0 is not above 0"),
        (["--max-seconds", "-1"], "max_seconds: -1.0 is not above 0"),
        (["--min-kept", "nan"], "min_kept: nan is negative or not finite"),
        (["--ann-recall", "nan"], "ann_recall: nan must be from 0 to 1"),
        (["--teacher", "{other}/teacher"], "is not that of data set"),
        (["--teacher", "{place}"], "no finished run there"),
        (["--run", "{other}/teacher"], "is not that of data set"),
        (["--out", "{workplace}"], "which is no part of a frontier; give another --out"),
        (["--out", "{place}", "--seed", "7"], "'seed' was 0 and is now 7"),
    ],
)
def test_bad_input_is_the_users_fault_in_one_line(
    place: Path, workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    data = toy_interactions(num_users=60)
    save_interactions(data, tmp_path / "other" / "data")
    toy_run(tmp_path / "other" / "teacher", data, 8)
    words = [word.format(other=tmp_path / "other", place=place, workplace=workplace) for word in more]
    assert lowpass.main(arguments(workplace, tmp_path / "new", *words)) == 2
    assert message in read_error(capsys)
    assert not (tmp_path / "new").exists()


def test_a_run_must_be_smaller_and_have_a_name_of_its_own(
    workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = load_interactions(workplace / "data")
    toy_run(tmp_path / "big", data, 16)
    toy_run(tmp_path / "ce-d4", data, 3)
    for name, message in (("big", "must be below the teacher's 16"), ("ce-d4", "'ce-d4' already names a candidate")):
        assert lowpass.main(arguments(workplace, tmp_path / "new", "--run", str(tmp_path / name))) == 2
        assert message in read_error(capsys)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}", "--candidate", "any"], "no frontier.json there"),
        (["{place}", "--data", "{place}"], "--data: has no effect here, since a candidate has the data"),
        (["{place}", "--dtype", "float16"], "--dtype: has no effect here"),
        (["{place}", "--ann-recall", "0.9"], "--ann-recall: has no effect here"),
        (["{tmp}/broken"], "unreadable ("),
        (["{tmp}/later"], "format 2, this version reads 1"),
        (["{place}", "--candidate", "nonsense"], "no candidate 'nonsense'; it has teacher-float32, "),
        (["{place}", "--candidate", "popularity"], "'popularity' has no embeddings, so no bundle can hold it"),
    ],
)
def test_what_cannot_be_published_is_refused_in_one_line(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    for name, content in (("broken", "{"), ("later", '{"format": 2}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "frontier.json").write_text(content, encoding="utf-8")
    given = [word.format(tmp=tmp_path, place=place) for word in words]
    assert lowpass.main(["export", *given, "--repository", str(tmp_path / "models"), "--model", "m"]) == 2
    assert message in read_error(capsys)
    assert not (tmp_path / "models").exists()


def test_options_that_make_sense_for_a_candidate_are_kept(place: Path, tmp_path: Path) -> None:
    words = ["export", str(place), "--candidate", "ce-d4-float16", "--repository", str(tmp_path), "--model", "m"]
    assert lowpass.main([*words, "--version", "7", "--label", "canary", "--answer-table", "3", "--seen", "all"]) == 0
    bundle = open_bundle(tmp_path / "m" / "7")
    assert ModelRepository(tmp_path).labels("m") == {"canary": "7"}
    assert bundle.manifest.answer_table == 3
    data = load_interactions(Path(read(place)["data"]["path"]))
    assert set(data.test[3].indices) <= set(bundle.seen(3).tolist())
