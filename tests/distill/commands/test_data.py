from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import lowpass
from distill.commands.data import prepare_command
from distill.data.interactions import load_interactions
from distill.data.public_sets import CATALOG

REAL_DATA = Path(__file__).parents[4] / "shared" / "data"
needs_real_data = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="no ../shared/data here")
CSV = "user_id,item_id,rating,timestamp\n" + "".join(
    f"u{user},i{item},{1 + (user + item) % 5},{item}\n" for user in range(6) for item in range(12)
)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = lowpass.main(["data", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def run_json(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    code, out, err = run(capsys, *words, "--json")
    assert code == 0, err
    report: dict[str, Any] = json.loads(out)
    return report


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    path = tmp_path / "ratings.csv"
    path.write_text(CSV)
    return path


def test_prepare_then_inspect(capsys: pytest.CaptureFixture[str], tmp_path: Path, ratings: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title,categories\ni1,One,a|b\n")
    words = ["--rating-min", 2, "--user-min", 3, "--split", "temporal", "--items", tmp_path / "items.csv"]
    report = run_json(capsys, "prepare", ratings, "--out", tmp_path / "mine", *words)
    assert report["counts"]["users"] == 6
    understood = report["settings"].pop("understood")
    assert report["settings"] == {
        "reader": "csv",
        "source": "ratings.csv",
        "rating_minimum": 2.0,
        "user_minimum": 3,
        "item_minimum": 0,
        "split": "temporal",
        "ratios": "8:1:1",
        "seed": 0,
    }
    assert understood == {
        "format": "csv",
        "files": ["ratings.csv"],
        "files_not_read": [],
        "columns": {"user": "user_id", "item": "item_id", "rating": "rating", "timestamp": "timestamp"},
        "columns_not_read": [],
        "first_row": {"user": "u0", "item": "i0", "rating": "1", "time": "0"},
        "rows": {"read": 72, "below_the_rating": 15, "repeated": 0, "outside_the_core": 0},
        "times": {"first": "0", "last": "11", "unit": "of no unit known", "tied": 0.0},
        "titles": {"items": 12, "found": 1},
        "split": "temporal",
        "split_because": "as asked",
        "warnings": [],
    }
    description = run_json(capsys, "inspect", tmp_path / "mine")
    assert description["name"] == "mine"
    assert description["settings"]["understood"] == understood
    assert description["fingerprint"] == report["fingerprint"]
    data = load_interactions(tmp_path / "mine")
    assert dict(zip(data.item_ids.tolist(), data.item_titles or (), strict=True))["i1"] == "One"
    code, out, _ = run(capsys, "inspect", tmp_path / "mine")
    assert code == 0
    assert out.startswith("mine: 6 users, 12 items")
    assert "\nformat       csv: ratings.csv\n" in out
    assert "\nfirst row    user = u0, item = i0, rating = 1, time = 0\n" in out


def test_prepare_says_what_it_took_the_source_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    rows = [f"u{row % 4},i{row % 7}.0,{row % 5},{1700000000 + row * 86400},x" for row in range(20)]
    path.write_text("\n".join(["User ID,itemid,Rating,TimeStamp,dt", *(row.replace("i", "") for row in rows)]))
    code, out, err = run(capsys, "prepare", path, "--out", tmp_path / "mine")
    assert code == 0
    assert out.splitlines() == [
        "mine: 4 users, 7 items, 16 train, 0 validation, 4 test",
        "format       csv: log.csv",
        "columns      user = User ID, item = itemid, rating = Rating, timestamp = TimeStamp; not read: dt",
        "first row    user = u0, item = 0, rating = 0, time = 2023-11-14 22:13:20",
        "rows         20 read",
        "times        2023-11-14 22:13:20 to 2023-12-03 22:13:20 (seconds), 0% tied",
        "split        temporal: the source has times",
        f"written to {tmp_path / 'mine'}",
    ]
    dropped, untrained = err.splitlines()
    assert dropped == f"lowpass: warning: {path}: line 2: item id '0.0': '.0' was dropped of 7 distinct item ids"
    assert untrained.startswith("lowpass: warning: no interaction is left for validation, so that nothing can be")
    code, out, err = run(capsys, "prepare", path, "--out", tmp_path / "mine", "--ids-as-written", "--split", "ordered")
    assert (code, err.splitlines()) == (0, [untrained])
    assert "item = 0.0" in out
    assert "split        ordered: as asked" in out


def test_prepare_replaces_its_own_output_and_fills_an_empty_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, ratings: Path
) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    first = run_json(capsys, "prepare", ratings, "--out", out, "--split", "random")
    second = run_json(capsys, "prepare", ratings, "--out", out, "--split", "random", "--seed", 1)
    assert first["fingerprint"] != second["fingerprint"]
    assert load_interactions(out).fingerprint == second["fingerprint"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prepare", "gone.csv", "--out", "x"], "gone.csv: no such file or directory"),
        (["prepare", "gone.csv"], "Missing option '--out'"),
        (["prepare", "RATINGS", "--out", "x", "--ratios", "8:2"], "--ratios '8:2': give three whole numbers"),
        (["prepare", "RATINGS", "--out", "x", "--user-min", "99"], "lower --rating-min, --user-min or"),
        (["prepare", "RATINGS", "--out", ".", "--user-min", "1"], "not a data directory"),
        (["prepare", "RATINGS", "--out", "x", "--user-column", "who"], "no column 'who'; it has user_id"),
        (["prepare", "RATINGS", "--out", "x", "--split", "ready"], "the source is not split"),
        (["inspect", "gone"], "no dataset.json there"),
        (["synth", "x", "--clusters", "0"], "--clusters 0"),
        (["fetch", "netflix"], "no data set 'netflix'"),
        (["fetch", "ml-100k", "--out", "raw", "--from-file", "gone"], "gone: no such file or folder"),
        (["fetch", "ml-100k", "--out", "raw", "--mirror", "http://example.org"], "only https is allowed"),
    ],
)
def test_the_users_mistakes_exit_2_with_a_remedy(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    ratings: Path,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *(str(ratings) if word == "RATINGS" else word for word in words))
    assert code == 2
    assert message in err
    assert out == ""
    assert not (tmp_path / "x").exists()


def test_synth(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--users", 200, "--items", 300, "--clusters", 12, "--interactions", 30, "--seed", 3]
    report = run_json(capsys, "synth", tmp_path / "demo", *words)
    data = load_interactions(tmp_path / "demo")
    assert data.fingerprint == report["fingerprint"]
    assert data.num_users == 200
    assert data.settings["synthetic"]["seed"] == 3
    code, out, _ = run(capsys, "synth", tmp_path / "demo", *words)
    assert code == 0
    assert "200 users" in out


def test_fetch_without_a_name_lists_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert [entry["name"] for entry in run_json(capsys, "fetch")["sets"]] == list(CATALOG)
    code, out, _ = run(capsys, "fetch")
    assert code == 0
    assert all(name in out for name in CATALOG)


@needs_real_data
@pytest.mark.real_data
def test_fetch_from_file_and_the_command_it_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(capsys, "fetch", "ml-100k", "--from-file", REAL_DATA / "ml-100k")
    assert code == 0
    assert "2 files in raw/ml-100k, checksums verified" in out
    command = out.rsplit("next:", maxsplit=1)[1].split()
    assert command[:3] == ["lowpass", "data", "prepare"]
    printed = run_json(capsys, *command[2:])
    direct = run_json(
        capsys, "fetch", "ml-100k", "--from-file", REAL_DATA / "ml-100k", "--prepare", tmp_path / "direct"
    )
    assert printed["fingerprint"] == direct["fingerprint"]
    assert printed["counts"] == {"users": 938, "items": 1447, "train": 43919, "validation": 5497, "test": 5945}


def test_prepare_command_of_a_ready_split() -> None:
    command = prepare_command(CATALOG["gowalla"], Path("raw") / "gowalla")
    assert command == "lowpass data prepare raw/gowalla --out data/gowalla --format lightgcn --split ready"


@pytest.mark.parametrize("command", ["prepare", "fetch", "synth", "inspect"])
def test_help_has_an_example(capsys: pytest.CaptureFixture[str], command: str) -> None:
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert f"Example: lowpass data {command}" in out


def test_as_a_program_and_without_torch(tmp_path: Path) -> None:
    script = "import sys, lowpass; code = lowpass.main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-c", script, "data", "synth", str(out), "--users", "50", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["counts"]["users"] == 50
    assert done.stderr == ""
