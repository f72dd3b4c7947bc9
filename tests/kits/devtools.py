"""A page that is worked on in a real headless Chromium, over DevTools by a pair of pipes: no port, no package.

The protocol is https://chromedevtools.github.io/devtools-protocol/: JSON messages that end with a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from tests.kits.chromium import CHROMIUM, FLAGS, Theme

WITHIN = 30.0
"""Longest wait for an answer or for something to be seen, in seconds: a loaded machine takes its time."""
KEYS = {"Enter": (13, "\r"), "Escape": (27, ""), "Tab": (9, "")}


class ScriptFailed(Exception):
    """A script that a test runs in the page."""


class Page:
    """One page.

    Attributes:
        requests: Addresses that were asked for, in order.
        headers: Of each request.
        complaints: What the browser wrote to its console, breaches of the content policy and exceptions among it.
    """

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.complaints: list[str] = []
        self._to_browser = to_browser
        self._answers: Queue[dict[str, Any]] = Queue()
        self._number = 0
        self._session: str | None = None
        self._reader = threading.Thread(target=self._read, args=(from_browser,), daemon=True)
        self._reader.start()
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask the browser; its answer."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        while True:
            try:
                answer = self._answers.get(timeout=WITHIN)
            except Empty:
                raise AssertionError(f"{method}: no answer in {WITHIN:g} s") from None
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def open(self, address: str) -> None:
        """Go there."""
        self.call("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise ScriptFailed(str(found["exceptionDetails"]))
        return found["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """The value of an expression, once it is true; what fails because the page is not there yet is asked again."""
        give_up = time.monotonic() + WITHIN
        while True:
            with suppress(ScriptFailed):
                if found := self.evaluate(script):
                    return found
            assert time.monotonic() < give_up, f"never true: {script}\n{self.text('body')}"
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """What is to be read in an element; what is hidden is not."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait_for_text(self, selector: str, text: str) -> None:
        """Wait until it is to be read there."""
        self.wait_for(f"(document.querySelector({json.dumps(selector)})?.innerText ?? '').includes({json.dumps(text)})")

    def click(self, selector: str, text: str = "") -> None:
        """Press the mouse on the first such element that has this text, at its middle, where it can be seen."""
        elements, words = f"[...document.querySelectorAll({json.dumps(selector)})]", json.dumps(text)
        found = f"{elements}.find(e => e.textContent.includes({words}))"
        self.wait_for(f"!!{found}")
        place = self.evaluate(
            f"(() => {{ const e = {found}; e.scrollIntoView({{block: 'center'}}); const r = e.getBoundingClientRect();"
            " return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Type into what has the focus."""
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press and let go a key."""
        code, text = KEYS[key]
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def show(self, theme: Theme, width: int, height: int = 900) -> None:
        """Set colours and size of the window."""
        feature = {"name": "prefers-color-scheme", "value": theme}
        self.call("Emulation.setEmulatedMedia", features=[feature])
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def photograph(self, path: Path) -> None:
        """Take a picture of the whole page, PNG."""
        picture = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(picture))

    def _read(self, from_browser: int) -> None:
        waiting = b""
        with suppress(OSError):
            while more := os.read(from_browser, 1 << 16):
                *messages, waiting = (waiting + more).split(b"\0")
                for message in messages:
                    self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        about = message.get("params", {})
        match message.get("method"):
            case None:
                self._answers.put(message)
            case "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])
                self.headers.append(about["request"]["headers"])
            case "Log.entryAdded":
                self.complaints.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
            case "Runtime.consoleAPICalled":
                self.complaints.append(str(about["args"]))
            case "Runtime.exceptionThrown":
                self.complaints.append(str(about["exceptionDetails"]))


@contextmanager
def chromium_page() -> Iterator[Page]:
    """A page in a browser of its own, which ends afterwards."""
    assert CHROMIUM is not None
    child_reads, we_write = os.pipe()
    we_read, child_writes = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # DevTools wants the descriptors 3 and 4, and subprocess keeps numbers as they are.
        script = f'exec "$0" "$@" 3<&{child_reads} 4>&{child_writes}'
        words = [CHROMIUM, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={folder}/profile", "about:blank"]
        browser = subprocess.Popen(
            ["bash", "-c", script, *words], pass_fds=(child_reads, child_writes), stderr=subprocess.DEVNULL
        )
        os.close(child_reads)
        os.close(child_writes)
        try:
            page = Page(we_write, we_read)
            yield page
            with suppress(OSError, AssertionError):
                page.call("Browser.close")
        finally:
            os.close(we_write)
            try:
                browser.wait(10.0)
            except subprocess.TimeoutExpired:
                browser.kill()
                browser.wait()
            page._reader.join(10.0)
            os.close(we_read)
