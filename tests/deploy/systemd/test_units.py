"""The units: systemd knows every key in them, what they start exists, and the server runs under their hardest rule."""

from __future__ import annotations

import configparser
import ctypes
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from serve.client.recommender import RecommenderClient
from tests.deploy.product import check_words, serve_options
from tests.serve.processes import serving
from tests.serve.repositories import publish

FOLDER = Path(__file__).parents[3] / "deploy" / "systemd"
UNITS = sorted(path for path in FOLDER.iterdir() if path.suffix in {".service", ".timer"})
PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")


def read_unit(name: str) -> dict[str, list[str]]:
    """Key → values, of all sections; a key may come several times."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / name).read_text().splitlines():
        if match := re.match(r"([A-Za-z]+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def verify(folder: Path) -> subprocess.CompletedProcess[str]:
    """Ask systemd about the units, with a program in the place of the one that is not installed here."""
    for unit in UNITS:
        (folder / unit.name).write_text(unit.read_text().replace("/opt/lowpass/bin/lowpass", sys.executable))
    command = ["systemd-analyze", "verify", "--man=no", *(str(folder / unit.name) for unit in UNITS)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_there_are_a_server_a_job_and_its_timer() -> None:
    assert [unit.name for unit in UNITS] == ["lowpass-job.service", "lowpass-job.timer", "lowpass-serve.service"]


@needs_systemd
def test_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    done = verify(tmp_path)
    # An unknown key is a line on stderr, and exit code 0.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_an_unknown_key_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    unit = tmp_path / "x" / "lowpass-serve.service"
    text = (FOLDER / unit.name).read_text().replace("/opt/lowpass/bin/lowpass", sys.executable)
    unit.write_text(text.replace("NoNewPrivileges", "NoNewPriviledges"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert "NoNewPriviledges" in done.stderr


@needs_systemd
@pytest.mark.parametrize("name", ["lowpass-serve.service", "lowpass-job.service"])
def test_units_are_hardened(name: str) -> None:
    """systemd's own score of exposure, in tenths: 20 of 100 at most, where a unit without rules has 92 to 96."""
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(FOLDER / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout


def test_the_server_is_started_by_options_that_exist() -> None:
    unit = read_unit("lowpass-serve.service")
    (start,) = unit["ExecStart"]
    check_words(start.split()[1:])
    options = serve_options(FOLDER / "serve.toml")
    assert start.endswith(f"/etc/{unit['ConfigurationDirectory'][0]}/serve.toml")
    # systemd waits for the file that the server writes, where it may write it, and for longer than a stop takes.
    assert str(options.ready_file) in unit["ExecStartPost"][0]
    assert str(options.ready_file).startswith(f"/run/{unit['RuntimeDirectory'][0]}/")
    assert str(options.repository).startswith(f"/var/lib/{unit['StateDirectory'][0]}/")
    assert options.drain_wait + options.grace < int(unit["TimeoutStopSec"][0])
    assert f"-{options.repository}" in unit["ReadOnlyPaths"]


def test_the_timer_starts_the_job() -> None:
    parser = configparser.ConfigParser()
    parser.read(FOLDER / "lowpass-job.timer")
    assert "Unit" not in parser["Timer"]  # then it is the service of the same name
    assert read_unit("lowpass-job.service")["Type"] == ["oneshot"]
    done = subprocess.run(
        ["systemd-analyze", "calendar", parser["Timer"]["OnCalendar"]], capture_output=True, text=True, check=False
    )
    assert "Next elapse" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="MemoryDenyWriteExecute is Linux's")
@pytest.mark.parametrize("transport", ["grpcio", "native"])
def test_the_server_needs_no_memory_that_is_both_written_and_executed(tmp_path: Path, transport: str) -> None:
    """The one rule of the unit that a Python program may break: ONNX Runtime, FAISS or ctypes could map such pages."""
    publish(tmp_path / "models", "student", factory="HNSW16", seed=1)
    refuse = (
        "import ctypes, os, sys; assert ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) == 0, 'no such prctl';"
        " os.execv(sys.argv[1], sys.argv[1:])"
    )
    if ctypes.CDLL(None).prctl(PR_SET_MDWE + 1, 0, 0, 0, 0) < 0:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    words = ["--repository", str(tmp_path / "models"), "--transport", transport, "--drain-wait", "0"]
    with serving(tmp_path, *words, before=[sys.executable, "-c", refuse]) as server:
        with RecommenderClient(server.address, timeout=30) as client:
            assert len(client.recommend("u1", k=5).item_ids) == 5
            assert len(client.recommend(history=["i1", "i2"], k=5).item_ids) == 5
        assert server.terminate() == 0
