"""What `distill` offers by name, and what it costs not to ask for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import distill


@pytest.mark.parametrize("name", distill.__all__)
def test_every_offered_name_is_there(name: str) -> None:
    assert getattr(distill, name).__name__ == name


def test_types_and_imports_say_the_same() -> None:
    tree = ast.parse(Path(distill.__file__).read_text(encoding="utf-8"))
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {
        node.module: {alias.name for alias in node.names} for node in typed.body if isinstance(node, ast.ImportFrom)
    }
    assert homes == distill._HOMES
    assert sorted(name for names in homes.values() for name in names) == distill.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'distill' has no attribute 'nonsense'"):
        _ = distill.nonsense  # type: ignore[attr-defined]


def test_what_reads_data_imports_no_torch() -> None:
    code = "import sys, distill.commands.data\nassert 'torch' not in sys.modules and 'matplotlib' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
