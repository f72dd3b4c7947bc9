"""What a frontier leaves out of large data by itself, so that it ends; whatever is asked for by name is done.

Students of lists, which start from the teacher's SVD there, train a few epochs (`LARGE_DEFAULTS`). 1,000 epochs of
anything else take days, so what learns no lists gets a bound in seconds.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from distill.data.interactions import Interactions
from distill.methods.candidates import is_whole
from distill.methods.composition import learns_lists
from distill.training.job import LARGE_DEFAULTS
from export.frontier.plan import Plan

LARGE_METHODS = ("scratch", "freqd", "ce+rcekd")
"""The student alone, the frequency view and the recipe; the other methods are near to one of them."""
LARGE_MAX_SECONDS = 600.0


def suit(plan: Plan, given: Set[str], data: Interactions) -> tuple[Plan, list[str]]:
    """Cut a plan down to what ends on its data.

    Args:
        plan: What there is to do.
        given: Names of its fields, and of those of `training`, that somebody chose.
        data: To do it on.

    Returns:
        The plan, and a sentence for each thing left out, with the option that brings it; none where catalogues are
        ranked whole.
    """
    if is_whole(*data.train.shape):
        return plan, []
    notes = []
    about = f"{data.num_users * data.num_items:.1e} pairs of user and item"
    if "methods" not in given:
        left_out = [method for method in plan.methods if method not in LARGE_METHODS]
        plan = replace(plan, methods=tuple(method for method in plan.methods if method in LARGE_METHODS))
        notes.append(f"{', '.join(left_out)}: left out, because of {about}; --methods brings them.")
    if plan.methods and not given & {"epochs", "max_seconds"}:
        plan = replace(plan, max_seconds_alone=LARGE_MAX_SECONDS)
        listed = [method for method in plan.methods if learns_lists(method)]
        notes.append(
            f"Students are trained for {LARGE_MAX_SECONDS:.0f} s each"
            + (f", those of {', '.join(listed)} for {LARGE_DEFAULTS['epochs']} epochs" if listed else "")
            + f", because of {about}; --max-seconds or --epochs gives them more."
        )
    return plan, notes
