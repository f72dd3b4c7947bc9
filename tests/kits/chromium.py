"""A page opened in a real headless Chromium: what it shows, says and asks for.

The browser's own network log tells which requests the page made and which are the browser's own.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
Theme = Literal["light", "dark"]
THEMES = {"dark": 0, "light": 1}
BROWSER = "not an origin"
"""Who started a request that no page started, in the words of the network log."""

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


@dataclass(frozen=True)
class Visit:
    """What came of opening a page.

    Attributes:
        document: The document as the browser understood it, HTML.
        console: What the page or the browser wrote to the console.
        requests: Addresses the page asked for, its own file left out.
    """

    document: str
    console: list[str]
    requests: list[str]


def visit(page: Path) -> Visit:
    """Open a file and listen."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "network.json"
        result = _run(folder, f"--log-net-log={log}", "--enable-logging=stderr", "--dump-dom", page.as_uri())
        events = json.loads(log.read_text(encoding="utf-8"))
    started = events["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event["params"] for event in events["events"] if event["type"] == started and "params" in event]
    requests = [each["url"] for each in asked if "url" in each and each.get("initiator") != BROWSER]
    console = re.findall(r':CONSOLE[^\]]*\] "(.*?)", source:', result.stderr, flags=re.DOTALL)
    return Visit(result.stdout, console, [url for url in requests if url != page.as_uri()])


def photograph(page: Path, theme: Theme, width: int = 1200, height: int = 2400) -> npt.NDArray[np.uint8]:
    """Take a picture of a file: RGB, shape (height, width, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        _run(
            folder,
            f"--blink-settings=preferredColorScheme={THEMES[theme]}",
            f"--window-size={width},{height}",
            f"--screenshot={picture}",
            page.as_uri(),
        )
        with Image.open(picture) as image:
            return np.asarray(image.convert("RGB"))


def _run(folder: str, *words: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder}/profile", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
