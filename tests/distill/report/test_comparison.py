from __future__ import annotations

import numpy as np
import pytest

from distill.evaluation.evaluate import evaluate
from distill.evaluation.significance import compare_pairs
from distill.report.comparison import build_comparison, build_significance, build_summary, teacher_quality
from distill.report.material import gather
from distill.report.recommendations import rank_all
from distill.report.section import Cell, LeftOut, Section, Table, mean_and_spread
from tests.distill.report.conftest import Gallery


def tables(section: Section | LeftOut) -> list[Table]:
    assert isinstance(section, Section)
    return [part for part in section.parts if isinstance(part, Table)]


def words(table: Table) -> list[list[str]]:
    return [[cell if isinstance(cell, str) else cell.text for cell in row] for row in table.rows]


def test_both_conventions_have_a_table_with_mean_and_spread(gallery: Gallery) -> None:
    with_relevant, over_all = tables(build_comparison(gallery.gather()))
    assert (with_relevant.caption, over_all.caption) == (
        "Mean over users with relevant items", "Mean over all users, zeros for those without relevant items",
    )  # fmt: skip
    recall = [run.metrics["test"]["Recall@20"] for run in gallery.freqd]
    column = list(with_relevant.header).index("test Recall@20")
    teacher, freqd, scratch = words(with_relevant)
    assert freqd[:3] == ["freqd bipartite α 0.2 wd 0.001, d 12", "12", "2"]
    assert freqd[column] == f"{np.mean(recall):.4f} ± {np.std(recall, ddof=1):.4f}"
    assert scratch[column] == f"{gallery.scratch.metrics['test']['Recall@20']:.4f}"
    kept = list(with_relevant.header).index("kept")
    assert teacher[kept] == "100.0%"
    assert freqd[kept] == f"{np.mean(recall) / gallery.teacher.metrics['test']['Recall@20']:.1%}"
    assert words(over_all)[2][column] == f"{gallery.scratch.metrics['test_all_users']['Recall@20']:.4f}"


def test_bold_is_the_best_student_and_never_the_teacher(gallery: Gallery) -> None:
    table = tables(build_comparison(gallery.gather()))[0]
    column = list(table.header).index("test Recall@20")
    cells = [row[column] for row in table.rows]
    assert [isinstance(cell, Cell) and cell.emphasis for cell in cells] == ["", "best", ""]


def test_users_are_paired_and_seeds_averaged_first(gallery: Gallery) -> None:
    material = gallery.gather()
    matrix, pairs = tables(build_significance(material, rank_all(material)))
    per_user = {
        group.name: np.mean(
            [
                evaluate(run.user_embeddings, run.item_embeddings, gallery.data).per_user["Recall@20"]
                for run in group.runs
            ],
            axis=0,
        )
        for group in material.groups
    }
    expected = compare_pairs(per_user)
    assert [row[:2] for row in words(pairs)] == [[test.first, test.second] for test in expected]
    shown = [f"{100 * test.difference:+.2f}".replace("-", "−") for test in expected]
    assert [row[2] for row in words(pairs)] == shown
    assert [row[1:] for row in words(matrix)] == [
        ["", shown[0], shown[1]],
        [mirror(shown[0]), "", shown[2]],
        [mirror(shown[1]), mirror(shown[2]), ""],
    ]
    above, below = matrix.rows[0][3], matrix.rows[2][1]
    assert isinstance(above, Cell)
    assert isinstance(below, Cell)
    assert (above.emphasis, below.emphasis) == ("better", "worse")
    assert "corrected p < 0.001" in above.hint
    assert pairs.fold


def mirror(text: str) -> str:
    return text.translate(str.maketrans("+−", "−+"))


def test_without_data_or_a_second_setting_nothing_is_tested(gallery: Gallery) -> None:
    material = gather(gallery.students)
    assert rank_all(material) == {}
    left_out = build_significance(material, {})
    assert isinstance(left_out, LeftOut)
    assert "--data" in left_out.remedy
    alone = gather([gallery.scratch.path], gallery.folder / "data")
    assert isinstance(build_significance(alone, rank_all(alone)), LeftOut)


def test_the_page_opens_with_teacher_best_student_and_what_it_kept(gallery: Gallery) -> None:
    cards = {heading: number for heading, number, _ in build_summary(gallery.gather())}
    recall = np.mean([run.metrics["test"]["Recall@20"] for run in gallery.freqd])
    whole = teacher_quality(gallery.gather())
    assert whole == gallery.teacher.metrics["test"]["Recall@20"]
    assert cards == {
        "teacher": f"{whole:.4f}", "best on validation": f"{recall:.4f}", "kept": f"{recall / whole:.1%}",
        "smaller": "1.33×",
    }  # fmt: skip
    alone = build_summary(gather([gallery.scratch.path]))
    assert [heading for heading, *_ in alone] == ["best on validation"]


@pytest.mark.parametrize(("values", "text"), [([], "–"), ([0.25], "0.2500"), ([0.1, 0.3], "0.2000 ± 0.1414")])
def test_a_spread_is_shown_of_several_values_only(values: list[float], text: str) -> None:
    assert mean_and_spread(values) == text
