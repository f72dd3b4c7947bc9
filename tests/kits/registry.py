"""Whether everything registered inherits its kit, wherever its test module is."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType


def subclasses_in(package: ModuleType, kit: type) -> list[type]:
    """Import every module of a test package and return the kit's subclasses, at any depth."""
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    found: list[type] = []
    waiting = [kit]
    while waiting:
        children: list[type] = waiting.pop().__subclasses__()
        found += children
        waiting += children
    return found
