"""Options that several commands of this room share."""

from __future__ import annotations

from pathlib import Path

import click

EXISTING_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
DIRECTORY = click.Path(file_okay=False, path_type=Path)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
