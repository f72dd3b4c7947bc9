"""What a frontier leaves out of large data by itself, so that it ends; whatever is asked for by name is done.

An epoch of a loss over the catalogue costs as many scores as there are pairs of user and item, and 1,000 epochs of
anything take days there.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from distill.data.interactions import Interactions
from distill.methods.composition import learns_lists
from export.frontier.plan import Plan

LARGE_PAIRS = 5 * 10**9
"""Pairs of user and item: a minute an epoch of a loss over the catalogue."""
LARGE_MAX_SECONDS = 600.0


def suit(plan: Plan, given: Set[str], data: Interactions) -> tuple[Plan, list[str]]:
    """Cut a plan down to what ends on its data.

    Args:
        plan: What there is to do.
        given: Names of its fields, and of those of `training`, that somebody chose.
        data: To do it on.

    Returns:
        The plan, and a sentence for each thing left out, with the option that brings it; none up to `LARGE_PAIRS`.
    """
    pairs = data.num_users * data.num_items
    if pairs <= LARGE_PAIRS:
        return plan, []
    notes = []
    about = f"{pairs:.1e} pairs of user and item"
    costly = [method for method in plan.methods if learns_lists(method)]
    if costly and "methods" not in given:
        plan = replace(plan, methods=tuple(method for method in plan.methods if method not in costly))
        notes.append(f"{', '.join(costly)}: left out, since an epoch scores {about}; --methods brings them.")
    if plan.methods and not given & {"epochs", "max_seconds"}:
        plan = replace(plan, training={**plan.training, "max_seconds": LARGE_MAX_SECONDS})
        notes.append(
            f"Students are trained for {LARGE_MAX_SECONDS:.0f} s each, because of {about}; --max-seconds or --epochs "
            "gives them more."
        )
    return plan, notes
