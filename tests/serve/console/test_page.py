"""The page in a real headless Chromium, against a real server with two models and keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.bundle.repository import ModelRepository
from serve.client.recommender import RecommenderClient
from serve.rpc.credentials import new_key
from tests.kits.chromium import Theme, needs_chromium
from tests.kits.devtools import Page, chromium_page
from tests.serve.console.test_jobs import STATE, write
from tests.serve.console.toy_frontier import DOCUMENT
from tests.serve.processes import ServerProcess, serving

pytestmark = needs_chromium
SCREENS = {
    "overview": "#cards .card",
    "try": "#left option",
    "models": "#models-list tbody tr",
    "frontier": "#frontier-view tbody tr",
    "jobs": "#jobs-view tbody tr",
}
"""Screen → what is there once it is drawn."""
LOCKED = "status of 401"
"""The browser notes each answer that is no success; those to a wrong key are meant."""


@dataclass
class Desk:
    """A running server and who may do what there."""

    server: ServerProcess
    repository: ModelRepository
    reader: str
    operator: str
    log: Path

    @property
    def address(self) -> str:
        return f"http://{self.server.console_address}/"

    @property
    def stable(self) -> str:
        return self.repository.labels("student")["stable"]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, repository: ModelRepository) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("console")
    root = folder / "models"
    shutil.copytree(repository.root, root)
    _break_a_copy(root / "student", "1", "3")
    (reader, reader_line), (operator, operator_line) = new_key("reader"), new_key("operator")
    (folder / "keys").write_text(reader_line)
    (folder / "operators").write_text(operator_line)
    (folder / "frontier.json").write_text(json.dumps(DOCUMENT))
    write(folder / "jobs", "nightly", "20260102T000000Z", json.dumps(STATE))
    options = ["--repository", str(root), "--model", "student", "--model", "student:canary", "--model", "teacher"]
    options += ["--shadow", "student:teacher=1", "--drain-wait", "0", "--console-address", "127.0.0.1:0"]
    options += ["--jobs", str(folder / "jobs"), "--frontier", str(folder), "--access-log", "1"]
    options += ["--api-keys", str(folder / "keys"), "--admin-api-keys", str(folder / "operators")]
    with serving(folder, *options) as server:
        yield Desk(server, ModelRepository(root), reader, operator, folder / "serve.log")
        assert server.terminate() == 0


def _break_a_copy(model: Path, version: str, copy: str) -> None:
    shutil.copytree(model / version, model / copy)
    manifest = model / copy / "manifest.json"
    manifest.write_text(manifest.read_text().replace(f'"version": "{version}"', f'"version": "{copy}"'))
    vectors = model / copy / "item_embeddings.npy"
    broken = bytearray(vectors.read_bytes())
    broken[-2] ^= 0xFF
    vectors.write_bytes(broken)


@pytest.fixture
def page(desk: Desk) -> Iterator[Page]:
    """A browser at the door; afterwards all that it did is looked at."""
    with chromium_page() as opened:
        opened.show("light", 1280)
        opened.open(desk.address)
        opened.wait_for("document.getElementById('door')?.hidden === false")
        yield opened
        assert [said for said in opened.complaints if LOCKED not in said] == []
        asked = [address for address in opened.requests if not address.startswith("about:")]
        assert asked
        assert [address for address in asked if not address.startswith(desk.address)] == []
        assert not [
            address for address in asked if "?" in address or desk.reader in address or desk.operator in address
        ]


def enter(page: Page, key: str) -> None:
    page.evaluate("document.getElementById('key').value = ''")
    page.evaluate("document.getElementById('key').focus()")
    page.type(key)
    page.press("Enter")


def go(page: Page, desk: Desk, screen: str) -> None:
    page.evaluate(f"location.hash = '{screen}'")
    page.wait_for(f"!document.getElementById('{screen}').hidden && !!document.querySelector('{SCREENS[screen]}')")


def test_a_wrong_key_opens_nothing_and_a_readers_shows_each_screen(page: Page, desk: Desk, tmp_path: Path) -> None:
    enter(page, "wrong")
    page.wait_for_text("#door-error", "not one of the server’s")
    assert page.evaluate("document.getElementById('overview').hidden && document.getElementById('screens').hidden")
    with RecommenderClient(desk.server.address, api_key=desk.reader) as client:
        for user in range(40):
            client.recommend(f"u{user}", k=10)
    enter(page, desk.reader)
    page.wait_for_text("#status", "Serving student 2")
    assert page.evaluate("document.getElementById('key').value") == ""
    assert page.evaluate("JSON.stringify([localStorage.length, sessionStorage.length, document.cookie])") == '[0,0,""]'
    page.wait_for_text("#cards", "75 %")
    page.wait_for_text("#conditions", "The gate held what the latest run of the job nightly made")
    page.wait_for_text("#serving", "teacher 1")
    page.wait_for_text("#shadows", "student 2 beside teacher 1")
    go(page, desk, "frontier")
    page.wait_for_text("#frontier-view", "Take ce-d16-int8: 16 bytes an item.")
    assert page.evaluate("document.querySelectorAll('.plot circle').length") == len(DOCUMENT["candidates"])
    go(page, desk, "jobs")
    page.wait_for_text("#jobs-view", "held by the gate")
    page.wait_for_text("#jobs-view", "metrics.json")
    go(page, desk, "models")
    page.wait_for_text("#models-role", "You may look and not change")
    assert page.evaluate("[...document.querySelectorAll('.model button')].every(button => button.disabled)")
    for screen in SCREENS:
        go(page, desk, screen)
        photograph(page, screen, tmp_path)
        assert unnamed(page) == []
    for secret in (desk.reader, "Bearer"):
        assert secret not in desk.log.read_text()


def photograph(page: Page, screen: str, folder: Path) -> None:
    """At the desk and on a phone, by day and by night; nothing may be wider than its window."""
    themes: tuple[Theme, Theme] = ("light", "dark")
    for width, height in ((1280, 900), (360, 1600)):
        shades = []
        for theme in themes:
            page.show(theme, width, height)
            page.wait_for(f"innerWidth === {width} && matchMedia('(prefers-color-scheme: {theme})').matches")
            path = folder / f"{screen}-{width}-{theme}.png"
            page.photograph(path)
            with Image.open(path) as picture:
                assert picture.width == width
                shades.append(float(np.asarray(picture.convert("L")).mean()))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert shades[0] > 200 > 80 > shades[1]
    page.show("light", 1280)


def unnamed(page: Page) -> list[str]:
    """What a screen reader would call by no name; and landmarks, headings and tables that are not as they should be."""
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named = {"button", "link", "textbox", "combobox", "spinbutton", "radio", "image", "region", "navigation", "table"}
    wrong = []
    for node in nodes:
        role = node.get("role", {}).get("value")
        if not node.get("ignored") and role in named and not node.get("name", {}).get("value"):
            wrong.append(f"{role} without a name")
    roles = {node.get("role", {}).get("value") for node in nodes if not node.get("ignored")}
    roles_there = ("main", "banner", "navigation", "heading", "contentinfo")
    wrong += [f"no {role}" for role in roles_there if role not in roles]
    scopeless = "[...document.querySelectorAll('th:not([scope])')].map(cell => `no scope: ${cell.textContent}`)"
    wrong += page.evaluate(scopeless)
    return wrong


def test_two_models_answer_side_by_side_with_reasons(page: Page, desk: Desk) -> None:
    enter(page, desk.reader)
    go(page, desk, "try")
    assert page.evaluate("[left.value, right.value].map(each => each.replace('\\n', ' '))") == [
        "student 2",
        "teacher 1",
    ]
    page.click("#subject")
    page.type("u3")
    page.press("Enter")
    page.wait_for("document.querySelectorAll('.why:not(:empty)').length === 20")
    with RecommenderClient(desk.server.address, api_key=desk.reader) as client:
        lists = [client.recommend("u3", k=10, model=name, include_titles=True) for name in ("student", "teacher")]
        expected = [list(answer.item_ids) for answer in lists]
        reason = client.similar_items(expected[0][0], k=1, allow=[f"i{row}" for row in _seen(desk, 3)])
    items = "[...list.querySelectorAll('li[data-item]')].map(item => item.dataset.item)"
    shown = page.evaluate(f"[...document.querySelectorAll('.list')].map(list => {items})")
    assert shown == expected
    both = len(set(expected[0]) & set(expected[1]))
    assert f"{both} of 10" in page.text("#agree")
    assert lists[0].titles[0] in page.text(".list li")
    assert f"near Title of {reason.item_ids[0][1:]} ({reason.scores[0]:.2f})" in page.text(".list .why")
    page.click(".items button", "Similar items")
    page.wait_for("document.querySelectorAll('.near li').length === 5")
    page.click(".items button", "Ask by it")
    page.wait_for_text("#had", "The history: 1 item")
    assert page.evaluate("document.getElementById('subject').value") == expected[0][0]
    page.click("#popular")
    page.wait_for_text("#had", "The history: 3 items")
    page.evaluate("document.querySelector('input[value=user]').click()")
    page.click("#subject")
    page.type("nobody")
    page.press("Enter")
    page.wait_for_text("#try-error", "unknown user 'nobody'")
    page.complaints[:] = [said for said in page.complaints if "status of 404" not in said]


def _seen(desk: Desk, user: int) -> list[int]:
    folder = desk.repository.resolve("student", "2")
    indptr, indices = (np.load(folder / f"seen_{name}.npy", allow_pickle=False) for name in ("indptr", "indices"))
    return [int(row) for row in indices[indptr[user] : indptr[user + 1]]]


def test_a_label_moves_once_its_version_is_typed(page: Page, desk: Desk) -> None:
    enter(page, desk.operator)
    go(page, desk, "models")
    assert desk.stable == "2"
    page.click('[aria-label="student"] tbody tr:nth-child(1) button', "Make stable")
    page.wait_for_text("#confirm", "Move stable of student to version 1")
    assert "stable is version 2 now" in page.text("#confirm")
    assert page.evaluate("document.activeElement.id") == "confirm-word"
    page.type("2")
    page.press("Enter")
    assert page.evaluate("document.getElementById('confirm-yes').disabled && document.getElementById('confirm').open")
    page.press("Escape")
    page.wait_for("!document.getElementById('confirm').open")
    assert page.evaluate("document.activeElement.textContent.startsWith('Make stable')")
    assert desk.stable == "2"
    page.press("Enter")
    page.wait_for("document.getElementById('confirm').open")
    page.type("1")
    page.press("Enter")
    page.wait_for_text("#said", "stable of student is version 1.")
    assert desk.stable == "1"
    page.wait_for_text("#status", "Serving student 1")
    page.click('[aria-label="student"] button', "Roll back to 2")
    page.wait_for_text("#confirm", "Roll back student to version 2")
    page.type("2")
    page.press("Enter")
    page.wait_for_text("#said", "student is rolled back to version 2.")
    assert desk.stable == "2"


def test_what_cannot_be_loaded_says_why_and_changes_nothing(page: Page, desk: Desk) -> None:
    enter(page, desk.operator)
    go(page, desk, "models")
    page.click('[aria-label="student"] tbody tr:nth-child(3) button', "Make stable")
    page.wait_for("document.getElementById('confirm').open")
    page.type("3")
    page.press("Enter")
    page.wait_for_text("#confirm-error", "Nothing was changed.")
    assert "item_embeddings.npy" in page.text("#confirm-error")
    page.press("Escape")
    page.wait_for_text('[aria-label="student"] tbody tr:nth-child(3)', "could not be loaded")
    assert "item_embeddings.npy" in page.text('[aria-label="student"] tbody tr:nth-child(3)')
    assert desk.stable == "2"
    go(page, desk, "overview")
    page.wait_for_text("#conditions", "student 3 could not be loaded")
    page.complaints[:] = [said for said in page.complaints if "status of 400" not in said]


def test_the_keyboard_alone_reaches_the_content(page: Page, desk: Desk) -> None:
    enter(page, desk.reader)
    go(page, desk, "jobs")
    page.wait_for("document.activeElement.id === 'content'")
    page.evaluate("document.querySelector('.skip').focus()")
    page.press("Enter")
    page.wait_for("document.activeElement.id === 'content' && location.hash === '#jobs'")
    page.press("Tab")
    page.wait_for("document.activeElement.closest('#jobs') !== null")


def test_a_split_and_a_shadow_are_set_and_shown(page: Page, desk: Desk) -> None:
    enter(page, desk.operator)
    go(page, desk, "models")
    page.click('[aria-label="Split of student"] button', "Split")
    page.wait_for_text("#confirm", "Let canary (version 1) answer 5 % of the users of student")
    page.type("1")
    page.press("Enter")
    page.wait_for_text('[aria-label="Split of student"]', "canary (version 1) answers 5 % of the users")
    page.wait_for("!document.getElementById('confirm').open")
    page.click('[aria-label="Shadow of student"] button', "End the shadow")
    page.wait_for_text("#confirm", "End the shadow of student")
    page.type("student")
    page.press("Enter")
    page.wait_for_text('[aria-label="Shadow of student"]', "nobody answers again")


def test_the_policy_stops_what_it_must(desk: Desk) -> None:
    with chromium_page() as page:
        page.open(desk.address)
        page.wait_for("document.getElementById('door')?.hidden === false")
        page.evaluate("document.body.append(Object.assign(document.createElement('script'), {id: 'alien'}))")
        inline = "document.getElementById('alien').append('document.title = \"taken\"')"
        page.evaluate(f"(() => {{ try {{ {inline} }} catch {{}} }})()")
        page.evaluate("fetch('http://127.0.0.1:9/').catch(() => 0)")
        page.evaluate("(() => { try { document.body.innerHTML = '<b>x</b>' } catch {} })()")
        page.wait_for("document.title !== ''")
        assert page.evaluate("document.title") != "taken"
        assert page.evaluate("!!document.getElementById('door')")
        told = " ".join(page.complaints)
        assert "Content Security Policy" in told
        assert "connect-src" in told
