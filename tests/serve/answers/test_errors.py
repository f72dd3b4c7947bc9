from __future__ import annotations

import re

from serve.answers import errors


def leaves(root: type[errors.ServingError]) -> list[type[errors.ServingError]]:
    below = root.__subclasses__()
    return [leaf for child in below for leaf in leaves(child)] if below else [root]


def test_the_drawn_tree_is_the_tree() -> None:
    drawn = set(re.findall(r"^ {4}[│ ├└─]*(\w+)", errors.__doc__ or "", flags=re.MULTILINE))
    built = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.ServingError)
    }
    assert drawn == built


def test_all_are_the_users_fault() -> None:
    assert {kind.exit_code for kind in leaves(errors.ServingError)} == {2}


def test_messages_name_the_thing_and_the_remedy() -> None:
    assert str(errors.UnknownUser("ann")) == (
        "unknown user 'ann': send a history instead of a user id, or set allow_fallback"
    )
    wrong = errors.InvalidRequest(errors.FieldViolation("k", "is 0"), errors.FieldViolation("offset", "is 9"))
    assert str(wrong) == "k: is 0; offset: is 9"
    assert "50 ms" in str(errors.Overloaded(0.05))
