"""Faults of a spec, collected so that all of them are told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from distill.errors import DistillError
from export.bundle import BundleError
from jobs.errors import JobError, SpecError

T = TypeVar("T")

USERS = (DistillError, BundleError, JobError)
"""What says that the user's words are wrong."""
UNKNOWN, MISSING = {"unexpected_keyword_argument", "extra_forbidden"}, {"missing", "missing_argument"}


class Faults:
    """What is wrong in a file, in the order in which it was found.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[str] = []

    def add(self, place: str, text: str) -> None:
        """Note a fault: where in the file, what is wrong and the remedy."""
        line = f"{self._path}: {place}: {text}"
        if line not in self._found:
            self._found.append(line)

    def require_none(self) -> None:
        """Look whether there was any.

        Raises:
            SpecError: There was; each has a line.
        """
        if self._found:
            raise SpecError("\n".join(self._found))

    def build(self, kind: type[T], table: Mapping[str, Any], section: str) -> T | None:
        """Build a section by the types of its fields; each that does not fit is noted.

        Args:
            kind: A dataclass.
            table: Name → value.
            section: Its place in the file.

        Returns:
            None where something was noted.
        """
        try:
            return TypeAdapter(kind).validate_python(dict(table))
        except ValidationError as error:
            for found in error.errors():
                names = [section, *(str(part) for part in found["loc"])]
                self.add(".".join(names), _explain(found, kind))
        return None

    def attempt(self, section: str, settings: Mapping[str, Any], build: Callable[[Mapping[str, Any]], T]) -> T | None:
        """Build from settings that only the builder can judge; what it refuses is noted, and it goes on without.

        Args:
            section: Place in the file.
            settings: Name → value.
            build: Takes settings; raises an error of the user's that begins with the name of one.

        Returns:
            None where something was noted.
        """
        left, told = dict(settings), False
        while True:
            try:
                built = build(left)
            except USERS as error:
                told, text = True, str(error)
                name = next((name for name in left if text.startswith((f"{name}:", f"{name} "))), None)
                if name is None:
                    self.add(section, text)
                    return None
                self.add(f"{section}.{name}", text.removeprefix(name).removeprefix(":").strip())
                del left[name]
            else:
                return None if told else built


def _explain(found: Mapping[str, Any], kind: type[Any]) -> str:
    if found["type"] in UNKNOWN:
        return f"no such setting; it has {', '.join(field.name for field in fields(kind))}"
    if found["type"] in MISSING:
        return "is missing; give it"
    return f"{found.get('input')!r} does not fit ({found['msg']})"
