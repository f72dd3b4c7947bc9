from __future__ import annotations

import json
import re

from export.frontier import document
from export.frontier.choice import Limits
from tests.export.frontier.test_report import document_of
from tests.export.frontier.toy import build_baseline, build_row, build_teacher

ROWS = [build_teacher(), build_row("big", 0.99, 64), build_row("small", 0.97, 32), build_baseline("ease", 1.1, 99)]


def documented(section: str) -> set[str]:
    """Field names of the schema in the module's docstring, at an indentation."""
    text = document.__doc__ or ""
    lines = [line for line in text.splitlines() if re.match(rf"{section}[a-z]", line)]
    return {name.strip() for line in lines for name in re.split(r"\s{2,}", line.strip())[0].split(",")}


def test_the_schema_in_the_docstring_is_the_one_that_is_written() -> None:
    content = document_of(ROWS)
    assert documented("") == set(content)
    assert documented(" {4}") == set(content["candidates"][0])


def test_it_is_plain_json_and_its_names_are_rows() -> None:
    content = json.loads(json.dumps(document_of(ROWS, Limits(max_bytes_per_item=100)), allow_nan=False))
    names = [row["name"] for row in content["candidates"]]
    assert content["limits"] == {"max_bytes_per_item": 100, "max_p99_ms": None, "min_kept": 0.95}
    named = [
        content["recommended"],
        content["runner_up"],
        content["next_cheaper"],
        *content["level"],
        *content["pareto"],
    ]
    assert set(named) <= {*names, None}
    assert [row["fits"] for row in content["candidates"]] == [False, True, True, False]
    assert content["recommended"] == "big"


def test_where_nothing_fits_recommended_is_null() -> None:
    content = document_of(ROWS, Limits(max_bytes_per_item=31))
    assert content["recommended"] is None
    assert content["level"] == content["commands"] == []
    assert content["relaxations"] == [{"values": {"max_bytes_per_item": 32}, "candidate": "small"}]
