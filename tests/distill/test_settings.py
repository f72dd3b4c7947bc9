from __future__ import annotations

from dataclasses import dataclass

import pytest

from distill.errors import SettingError
from distill.settings import build_settings


@dataclass(frozen=True)
class Some:
    share: float = 1.0
    count: int = 1
    weights: tuple[float, ...] = (1.0,)
    is_on: bool | None = None


def test_words_become_values() -> None:
    given = {"share": "0.5", "count": "7", "weights": "1,2", "is_on": "true"}
    assert build_settings(Some, given, "some") == Some(0.5, 7, (1.0, 2.0), is_on=True)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("other", "1", "'some' has no such setting"),
        ("count", "1.5", "does not fit 'some'"),
        ("share", "nan", "share: nan is not finite"),
        ("share", "-inf", "share: -inf is not finite"),
        ("share", float("nan"), "share: nan is not finite"),
        ("weights", "1,nan", "weights: nan is not finite"),
        ("count", str(10**23), "count: 1.* is beyond 9,223,372,036,854,775,807"),
        ("count", -(10**23), "count: -1.* is beyond"),
    ],
)
def test_what_is_no_value_is_named(name: str, value: object, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        build_settings(Some, {name: value}, "some")
