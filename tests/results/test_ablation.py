"""The ablation table: who stands in it, with what share."""

from __future__ import annotations

from pathlib import Path

from results.ablation import ABLATIONS, BLEND, render_ablation
from results.cells import BLEND_TEST, Cell, Row
from tests.results.test_tables import squeezed
from tests.results.toy import row, write_plan

PLAN = """
[data]
toy = { source = "toy.csv" }
other = { source = "toy.csv" }
[contestants.recipe]
method = "ce+rcekd"
co_teachers = "auto"
[contestants.recipe-alone]
method = "ce+rcekd"
co_teachers = "auto"
teacher = false
[contestants.recipe-low]
method = "ce+rcekd"
co_teachers = "ideal-low=0.5"
[[study]]
data = "toy"
backbone = "bprmf"
teacher = { dim = 12 }
dim = 4
seeds = [0, 7]
contestants = ["recipe", "recipe-alone", "recipe-low"]
[[study]]
data = "other"
backbone = "bprmf"
teacher = { dim = 12 }
dim = 4
contestants = ["recipe"]
"""


def test_shares_stand_in_words_and_what_has_not_run_is_left_out(tmp_path: Path) -> None:
    plan = write_plan(tmp_path, PLAN)
    toy, other = plan.studies
    cells: dict[str, Row] = {Cell(study, "teacher").name: row(0.5, 0.4) for study in plan.studies}
    assert render_ablation(plan, cells) == ""
    for seed, test in ((0, 0.4), (7, 0.5)):
        cells[Cell(toy, "recipe", 4, 0, seed).name] = {**row(0.5, test), BLEND_TEST: 0.6}
    cells[Cell(toy, "recipe-alone", 4, 0, 0).name] = row(0.5, 0.3)
    first = squeezed(render_ablation(plan, cells))
    assert f"| {ABLATIONS['recipe']} | `recipe` | 112.5% ± 17.7% |" in first
    assert "| without the teacher: co-teachers alone | `recipe-alone` | 75.0% |" in first
    assert f"| {BLEND} | | 150.0% |" in first
    assert "lowest" not in first.split("|", 1)[1], "no study has run it"
    assert "other/bprmf" not in first
    cells[Cell(other, "recipe", 4, 0, 0).name] = row(0.5, 0.2)
    assert "| `recipe-alone` | 75.0% | – |" in squeezed(render_ablation(plan, cells))
