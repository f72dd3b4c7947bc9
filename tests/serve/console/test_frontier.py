from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serve.console.frontier import FILE, UnusableFrontier, read_frontier
from tests.serve.console.toy_frontier import DOCUMENT


def test_a_document_is_read_from_its_file_or_its_directory(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(json.dumps(DOCUMENT))
    assert read_frontier(tmp_path) == read_frontier(tmp_path / FILE) == DOCUMENT


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "no JSON"),
        ("[]", "no frontier"),
        ({**DOCUMENT, "format": 2}, "format 1"),
        ({**DOCUMENT, "candidates": []}, "candidates"),
        ({**DOCUMENT, "candidates": [{"name": "x"}]}, "bytes_per_item"),
    ],
)
def test_something_else_is_refused_by_name(tmp_path: Path, content: Any, words: str) -> None:
    (tmp_path / FILE).write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UnusableFrontier, match=words) as caught:
        read_frontier(tmp_path)
    assert str(tmp_path / FILE) in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnusableFrontier, match="cannot be read"):
        read_frontier(tmp_path)
