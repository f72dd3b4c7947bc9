from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.answers.errors import InvalidRequest
from serve.live.split import Split


def test_shares_are_kept_over_users_and_a_user_keeps_its_arm() -> None:
    split = Split({"canary": 0.05, "challenger": 0.25})
    arms = [split.arm(f"user-{number}") for number in range(40_000)]
    assert arms == [split.arm(f"user-{number}") for number in range(40_000)]
    for label, share in ((None, 0.7), ("canary", 0.05), ("challenger", 0.25)):
        assert arms.count(label) / len(arms) == pytest.approx(share, abs=0.01)


@given(st.text(), st.floats(0.01, 0.5))
def test_a_larger_share_keeps_those_it_had(key: str, share: float) -> None:
    if Split({"canary": share}).arm(key) == "canary":
        assert Split({"canary": share + 0.3}).arm(key) == "canary"


def test_no_split_sends_everybody_to_the_default() -> None:
    assert not Split()
    assert Split().arm("ann") is None
    assert Split({"canary": 1.0}).arm("ann") == "canary"


@pytest.mark.parametrize("shares", [{"a": 0.0}, {"a": -0.1}, {"a": 1.1}, {"a": float("nan")}, {"a": 0.6, "b": 0.5}])
def test_shares_out_of_range_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match="shares"):
        Split(shares)
