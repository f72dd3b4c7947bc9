"""The laws of DESIGN.md that a reader of the source can check; import-linter checks who may import whom."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("distill", "export", "jobs", "serve", "results")
GENERATED = ROOT / "serve" / "rpc" / "pb"
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py") if not path.is_relative_to(GENERATED))
PYTHON = [*SOURCES, ROOT / "lowpass.py", *sorted((ROOT / "tests").rglob("*.py"))]
ERRORS = ("distill.errors", "export.bundle.errors", "jobs.errors", "serve.answers.errors")
MAX_LINES = 500
"""A module that must be longer says why in its docstring, by the words "longer than"."""


def read_tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """Yield every module imported anywhere in a file, inside functions too."""
    for node in ast.walk(read_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[str]:
    return {name for name in imports(path) if name.split(".")[0] in ROOMS}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_law_1_the_command_line_imports_nothing_of_ours() -> None:
    assert not ours(ROOT / "lowpass.py")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_law_2_no_pickle(path: Path) -> None:
    assert not {name.split(".")[0] for name in imports(path)} & {"pickle", "cPickle", "dill", "joblib", "shelve"}
    for node in ast.walk(read_tree(path)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {"torch.load", "torch.save"}, f"line {node.lineno}: {called} pickles"
        allowed = {word.arg: ast.unparse(word.value) for word in node.keywords}.get("allow_pickle", "False")
        assert allowed == "False", f"line {node.lineno}: allow_pickle={allowed}"
        if called == "np.load":
            assert "allow_pickle" in {word.arg for word in node.keywords}, f"line {node.lineno}: say allow_pickle=False"


@pytest.mark.parametrize("path", [p for p in SOURCES if p.is_relative_to(ROOT / "distill")], ids=name_of)
def test_law_4_algorithms_read_no_environment_and_no_hidden_randomness(path: Path) -> None:
    for node in ast.walk(read_tree(path)):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            assert text not in {"os.environ", "os.getenv"}, f"line {node.lineno}: {text}"
            hidden = text.startswith("np.random.") and text not in {"np.random.Generator", "np.random.default_rng"}
            assert not hidden, f"line {node.lineno}: {text} draws from global state"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "np.random.default_rng":
            assert node.args, f"line {node.lineno}: a generator without a seed"


@pytest.mark.parametrize("name", ERRORS)
def test_every_user_facing_error_says_whose_fault_it_is(name: str) -> None:
    module = importlib.import_module(name)
    leaves = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == module.__name__
    ]
    assert leaves
    for kind in leaves:
        assert kind.__doc__, kind
        assert getattr(kind, "exit_code", None) == 2, kind


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_modules_are_small_and_named_for_what_they_hold(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc", "base_model"}
    if path.is_relative_to(ROOT / "tests"):
        return
    tree = ast.parse(text)
    assert len(text.splitlines()) <= MAX_LINES or "longer than" in (ast.get_docstring(tree) or "")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            start = node.body[1].lineno if ast.get_docstring(node) and len(node.body) > 1 else node.lineno
            assert (node.end_lineno or start) - start < 40, f"{node.name} is too long"


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_annotations_are_postponed_everywhere(path: Path) -> None:
    tree = read_tree(path)
    assert not tree.body or "__future__.annotations" in set(imports(path)) or path.name == "__init__.py"


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_every_source_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(read_tree(path))
