from __future__ import annotations

import pytest

from serve.process.supervisor import Backoff


def test_the_wait_doubles_up_to_a_bound() -> None:
    backoff = Backoff(first=0.1, factor=2.0, longest=1.0)
    assert [backoff.after(0.0) for _ in range(6)] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_a_while_of_health_makes_the_ends_before_it_forgotten() -> None:
    backoff = Backoff(first=0.1, factor=2.0, longest=10.0, healthy=60.0)
    waits = [backoff.after(served) for served in (0.0, 59.0, 61.0, 1.0)]
    assert waits == pytest.approx([0.1, 0.2, 0.1, 0.2])
