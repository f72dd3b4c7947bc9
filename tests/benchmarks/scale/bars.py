"""The sizes, and what each step may cost there."""

from __future__ import annotations

from dataclasses import dataclass

MAX_EXPONENT = 1.15
"""An epoch may grow as the interactions to this power, from one size to the next."""
GROWING = ("bprmf", "recipe")
"""Steps that are held to it."""


@dataclass(frozen=True)
class Size:
    """Shape of invented data.

    Attributes:
        users: |U|.
        items: |I|.
        mean: Interactions a user, on average.
        clusters: Of taste; a fifth of all draws is from outside a user's own.
    """

    users: int
    items: int
    mean: float
    clusters: int

    @property
    def breadth(self) -> float:
        """`--breadth` that gives the whole catalogue its fifth, whatever the number of clusters."""
        return 0.25 / self.clusters


SIZES = {
    "tiny": Size(300, 200, 20.0, 10),
    "S": Size(6_040, 3_706, 165.6, 60),
    "M": Size(200_000, 100_000, 25.0, 500),
    "L": Size(1_000_000, 1_000_000, 20.0, 1_000),
}
"""Of 1, 5 and 20 million interactions; `tiny` tries the benchmark itself."""


@dataclass(frozen=True)
class Bar:
    """Upper bounds.

    Attributes:
        seconds: Processor seconds on one core; of `road`, seconds of the clock.
        peak_gib: Most memory resident at once, GiB; None for no bound.
    """

    seconds: float
    peak_gib: float | None = None


BARS = {
    ("bprmf", "M"): Bar(40),
    ("bprmf", "L"): Bar(200, 3),
    ("recipe", "M"): Bar(40),
    ("recipe", "L"): Bar(350),
    ("import", "M"): Bar(120),
    ("import", "L"): Bar(900, 4),
    ("export", "M"): Bar(180),
    ("export", "L"): Bar(1200, 4),
    ("road", "M"): Bar(3_600),
    ("road", "L"): Bar(36_000),
}
"""(step, size) → bar; steps without one are shown for their growth."""
