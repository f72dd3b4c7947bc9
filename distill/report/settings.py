"""How the runs were made: what sets them apart, and every setting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from distill.report.material import Material
from distill.report.section import NOTHING, Cell, Section, Table, Text

PARTS = {"method_settings", "training"}
"""Of a run's settings; the names in them stand for themselves."""
NO_SETTINGS = {"seed", "teacher", "teacher_fingerprint"}
"""Seeds have their own table, and which teacher it was is said at the top."""


def build_settings_section(material: Material) -> Section:
    """A column a group with the settings in which they differ, then all settings run by run."""
    flat = [flatten(group.runs[0].config) for group in material.groups]
    names = dict.fromkeys(name for settings in flat for name in settings)
    apart = [name for name in names if name not in NO_SETTINGS and len({settings.get(name) for settings in flat}) > 1]
    header = ["setting", *(str(number) for number in range(1, len(flat) + 1))]
    rows: list[list[Cell | str]] = [[name, *(settings.get(name, NOTHING) for settings in flat)] for name in apart]
    key: list[list[Cell | str]] = [
        [Cell(f"{number}  {group.name}", colour=group.colour), ", ".join(_seed(run.config) for run in group.runs)]
        for number, group in enumerate(material.groups, start=1)
    ]
    parts: list[Table | Text] = [Table("Lines of this page", ["run", "seeds"], key, words=2)]
    if rows:
        parts.append(Table("What sets them apart", header, rows, words=len(header)))
    parts += [Text(json.dumps(run.config, indent=2, ensure_ascii=False), title=str(run.path)) for run in material.runs]
    return Section("settings", "Settings", "Everything that changes the result, as training recorded it.", parts)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as name → text; those of a part are "part.name", but for `PARTS`."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found |= flatten(value, prefix if name in PARTS else f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value if isinstance(value, str) else json.dumps(value)
    return found


def _seed(config: Mapping[str, Any]) -> str:
    return str(config.get("seed", NOTHING))
