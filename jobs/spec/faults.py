"""Faults of a spec, collected so that all of them are told at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
            section: Its place in the file, "" for the top.

        Returns:
            None where something was noted.
        """
        try:
            return TypeAdapter(kind).validate_python(dict(table))
        except ValidationError as error:
            for found in error.errors():
                names = [str(part) for part in found["loc"] if not str(part).startswith(("float", "literal"))]
                place = ".".join([section, *names] if section else names)
                self.add(place, _explain(found, kind))
        return None

    def attempt(self, section: str, settings: Mapping[str, Any], build: Callable[[Mapping[str, Any]], T]) -> T | None:
        """Build from settings that only the builder can judge: each alone first, so that each that is wrong is noted.

        Args:
            section: Place in the file.
            settings: Name → value.
            build: Takes settings; raises an error of the user's that begins with the name of one.

        Returns:
            None where something was noted.
        """
        told = False
        for name, value in settings.items():
            told |= self._tried(section, {name: value}, build) is None
        return None if told else self._tried(section, settings, build)

    def _tried(self, section: str, settings: Mapping[str, Any], build: Callable[[Mapping[str, Any]], T]) -> T | None:
        try:
            return build(settings)
        except USERS as error:
            name, separator, rest = str(error).partition(": ")
            known = bool(separator) and " " not in name
            self.add(f"{section}.{name}" if known else section, rest if known else str(error))
        except (TypeError, ValueError) as error:
            self.add(".".join([section, *settings][:2]), f"does not fit ({error}); see 'lowpass methods'")
        return None


def _explain(found: Mapping[str, Any], kind: type[Any]) -> str:
    if found["type"] in UNKNOWN:
        fields = ", ".join(TypeAdapter(kind).json_schema(mode="validation").get("properties", {}))
        return f"no such setting; it has {fields}"
    if found["type"] in MISSING:
        return "is missing; give it"
    remedy = "; give a number, or 'off'" if "float" in found["loc"] or "literal" in str(found["loc"]) else ""
    return f"{found.get('input')!r} does not fit ({found['msg']}){remedy}"
