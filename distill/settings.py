"""Settings objects: frozen dataclasses beside what they configure, filled from a user's words.

pydantic converts and checks types by a dataclass's annotations; ranges are the dataclass's own business.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from distill.errors import SettingError

T = TypeVar("T")
LARGEST = 2**63 - 1
"""Of whole numbers in torch and NumPy."""


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
        SettingError: A name is unknown, or a value has the wrong type, is out of range or no finite number.
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
        built = TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise SettingError(f"{name}: {given.get(name)!r} does not fit '{owner}' ({first['msg']})") from error
    for name in given:
        _require_number(name, getattr(built, name))
    return built


def _require_number(name: str, value: Any) -> None:
    """Refuse what compares like a number with every bound, and is none that can be computed with."""
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, float) and not math.isfinite(part):
            raise SettingError(f"{name}: {part} is not finite; give a number")
        if isinstance(part, int) and abs(part) > LARGEST:
            raise SettingError(f"{name}: {part} is beyond {LARGEST:,}; give a smaller number")


def describe_settings(kind: type[Any]) -> dict[str, Any]:
    """Name → default of every setting, for help texts."""
    default = kind()
    return {field.name: getattr(default, field.name) for field in fields(kind)}
