"""What happens to files under a server. Each test says what was tried and what was lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from export.bundle import BundleError
from export.bundle.repository import ModelRepository
from serve.client.answers import RecommendationList
from serve.client.errors import RecommenderError
from serve.client.recommender import RecommenderClient
from serve.live.loader import load_model
from tests.serve.live.test_live_models import load
from tests.serve.processes import serving
from tests.serve.repositories import publish


def ask_all(client: RecommenderClient) -> list[tuple[str, ...]]:
    """Everything that reads a file: users, histories, exact scores, titles, categories, neighbours."""
    found: list[RecommendationList] = []
    for user in range(20):
        found.append(client.recommend(f"u{user}", k=10, include_titles=True))
        found.append(client.recommend(f"u{user}", k=10, exact=True, allow_categories=["even"]))
        found.append(client.recommend(history=[f"i{user}", f"i{7 * user}"], k=10))
        found.append(client.similar_items(f"i{user}", k=10))
    return [(*answer.item_ids, *answer.titles) for answer in found]


def files(root: Path) -> list[Path]:
    return sorted(ModelRepository(root).resolve("student", "1").iterdir())


@pytest.mark.parametrize("factory", ["Flat", "HNSW8"])
def test_a_bundle_cut_or_overwritten_while_served(factory: str, tmp_path: Path) -> None:
    """Tried: every file cut to nothing, half-way, and filled with noise, under load. Lost: nothing."""
    publish(tmp_path / "models", "student", factory=factory)
    with serving(tmp_path, "--repository", str(tmp_path / "models"), "--drain-wait", "0") as server:
        with RecommenderClient(server.address, timeout=10.0) as client:
            before = ask_all(client)
            with load(server.address, clients=2) as counts:
                for path in files(tmp_path / "models"):
                    size = path.stat().st_size
                    os.truncate(path, size // 2)
                    path.write_bytes(os.urandom(size))
                    os.truncate(path, 0)
                after = ask_all(client)
        assert set(counts) == {"version 1"}
        assert after == before
        assert server.terminate() == 0


def test_a_mapped_bundle_cut_while_served(tmp_path: Path) -> None:
    """Tried: the same where bundles are mapped. Lost: the process, by SIGBUS; started again, it names the file.

    Nothing in Python can answer SIGBUS, so large bundles rest on being immutable: whoever publishes renames.
    """
    publish(tmp_path / "models", "student", factory="Flat")
    options = ["--repository", str(tmp_path / "models"), "--copy-up-to", "0"]
    (tmp_path / "first").mkdir()
    with serving(tmp_path / "first", *options) as server, RecommenderClient(server.address) as client:
        assert len(client.recommend("u1")) == 10
        (embeddings,) = (path for path in files(tmp_path / "models") if path.name == "user_embeddings.npy")
        os.truncate(embeddings, 0)
        with pytest.raises(RecommenderError):
            client.recommend("u1")
        assert server.process.wait(10) == -signal.SIGBUS
    again = subprocess.run(
        [
            sys.executable,
            "-m",
            "lowpass",
            "serve",
            "--address",
            "127.0.0.1:0",
            "--metrics-address",
            "127.0.0.1:0",
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert again.returncode == 2
    assert f"{embeddings}: 0 bytes, manifest says" in again.stderr


def test_one_flipped_bit_of_any_file_is_found_before_it_is_served(tmp_path: Path) -> None:
    """Tried: a bit in the middle of each file but the manifest. Lost: nothing; the error names the file."""
    path = publish(tmp_path, "student", factory="HNSW8")
    load_model("student", path)
    for file in files(tmp_path):
        if file.name == "manifest.json":
            continue
        content = file.read_bytes()
        flipped = bytearray(content)
        flipped[len(flipped) // 2] ^= 1
        file.write_bytes(flipped)
        with pytest.raises(BundleError, match=f"{file.name}: "):
            load_model("student", path)
        file.write_bytes(content)
    load_model("student", path)


def test_a_manifest_whose_list_of_files_was_changed_is_found(tmp_path: Path) -> None:
    """Tried: another digest in the manifest, as a flipped bit there makes. Lost: nothing."""
    path = publish(tmp_path, "student", factory="Flat")
    manifest = path / "manifest.json"
    text = manifest.read_text()
    at = text.index('"sha256": "') + len('"sha256": "')
    manifest.write_text(text[:at] + ("0" if text[at] != "0" else "1") + text[at + 1 :])
    with pytest.raises(BundleError, match=r"manifest\.json"):
        load_model("student", path)
