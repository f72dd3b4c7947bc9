"""Settings objects: frozen dataclasses beside what they configure, filled from a user's words.

pydantic converts and checks types by a dataclass's annotations; ranges are the dataclass's own business.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from distill.errors import SettingError

T = TypeVar("T")


@dataclass(frozen=True)
class NoSettings:
    """For what has nothing to set."""


def build_settings(kind: type[T], given: Mapping[str, Any], owner: str) -> T:
    """Build a settings object from names and values, which may be text.

    Args:
        kind: A frozen dataclass.
        given: Name → value; a list may be given as text with commas. What is left out keeps its default.
        owner: Whose settings they are, for messages.

    Raises:
        SettingError: A name is unknown, or a value has the wrong type or is out of range.
    """
    known = {field.name: str(field.type) for field in fields(kind)}  # type: ignore[arg-type]
    for name in given:
        if name not in known:
            raise SettingError(f"{name}: '{owner}' has no such setting; it has {', '.join(known) or 'none'}")
    values = {
        name: value.split(",") if isinstance(value, str) and "tuple" in known[name] else value
        for name, value in given.items()
    }
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise SettingError(f"{name}: {given.get(name)!r} does not fit '{owner}' ({first['msg']})") from error


def describe_settings(kind: type[Any]) -> dict[str, Any]:
    """Name → default of every setting, for help texts."""
    default = kind()
    return {field.name: getattr(default, field.name) for field in fields(kind)}
