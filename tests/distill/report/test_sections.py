from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.evaluation.protocol import evaluate
from distill.evaluation.significance import compare_pairs
from distill.graph.analysis import View, analyze_data
from distill.report import sections
from distill.report.material import Group, Material, gather, rank_all, rank_run
from distill.report.sections import (
    Chart,
    LeftOut,
    Section,
    Text,
    build_frequencies,
    build_frontier,
    build_learning,
    build_popularity,
    build_quality,
    build_settings,
    build_significance,
    build_summary,
    match_groups,
)
from distill.report.tables import Cell, Table
from distill.run import write_run
from tests.distill.report.invented import Gallery, invent_analysis, invent_frontier, invent_run


def tables(section: Section | LeftOut) -> list[Table]:
    assert isinstance(section, Section)
    return [part for part in section.parts if isinstance(part, Table)]


def words(table: Table) -> list[list[str]]:
    return [[cell if isinstance(cell, str) else cell.text for cell in row] for row in table.rows]


def test_both_conventions_have_a_table_with_mean_and_spread(gallery: Gallery) -> None:
    with_relevant, over_all = tables(build_quality(gallery.gather()))
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


def test_a_blend_that_taught_stands_below_the_students_once(gallery: Gallery, tmp_path: Path) -> None:
    reports = {name: gallery.teacher.metrics[name] for name in ("test", "test_all_users")}
    blend = {"weights": {"teacher": 1.0, "ease (regularization 10)": 0.5}, **reports}
    paths = [tmp_path / f"ce-{seed}" for seed in range(2)]
    for seed, path in enumerate(paths):
        run = invent_run(path, gallery.data, method="ce", seed=seed, teacher=gallery.teacher)
        write_run(path, run.config, run.user_embeddings, run.item_embeddings, {**run.metrics, "blend": blend})
    section = build_quality(gather(paths))
    for table, report in zip(tables(section), reports.values(), strict=True):
        *_, row = words(table)
        assert [len(table.rows), *row[:5]] == [3, "blend: teacher + 0.5 ease (regularization 10)", "–", "–", "–", "–"]
        assert row[5:] == [f"{report['Recall@20']:.4f}", f"{report['NDCG@20']:.4f}", "100.0%", "–", "–"]
    assert "A blend is" in section.lead
    assert "A blend is" not in build_quality(gallery.gather()).lead


def test_bold_is_the_best_student_and_never_the_teacher(gallery: Gallery) -> None:
    table = tables(build_quality(gallery.gather()))[0]
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
    whole = gallery.gather().teacher_quality()
    assert whole == gallery.teacher.metrics["test"]["Recall@20"]
    assert cards == {
        "teacher": f"{whole:.4f}", "best on validation": f"{recall:.4f}", "kept": f"{recall / whole:.1%}",
        "smaller": "1.33×",
    }  # fmt: skip
    alone = build_summary(gather([gallery.scratch.path]))
    assert [heading for heading, *_ in alone] == ["best on validation"]


def test_the_table_at_equal_time_is_fair_to_all(gallery: Gallery, tmp_path: Path) -> None:
    slow = [(5.0, 3.0, 0.15), (10.0, 6.0, 0.5)]
    paths = [
        invent_run(tmp_path / f"fd-{seed}", gallery.data, method="fd", seed=seed, teacher=gallery.teacher,
                   history=slow if seed else [(5.0, 1.5, 0.25), (10.0, 3.0, 0.35)]).path
        for seed in (0, 1)
    ]  # fmt: skip
    section = build_learning(gather([*paths, gallery.scratch.path]))
    assert isinstance(section, Section)
    chart, table = section.parts
    assert isinstance(chart, Chart)
    assert isinstance(table, Table)
    assert list(table.header) == ["run", "1 s", "2 s", "5 s", "6 s"]
    cells = [[cell if isinstance(cell, str) else (cell.text, cell.emphasis) for cell in row[1:]] for row in table.rows]
    teacher, fd, scratch = cells
    assert teacher == [("0.1000", ""), ("0.3000", ""), ("0.3000", ""), ("0.3000", "")]
    assert fd == [("–", ""), ("–", ""), ("0.2500 ± 0.1414", ""), ("0.4250 ± 0.1061", "best")]
    assert scratch == [("0.1000", "best"), ("0.3000", "best"), ("0.3000", "best"), ("0.3000", "")]
    assert [name for name, _ in chart.legend] == [str(row[0].text) for row in table.rows if isinstance(row[0], Cell)]


def test_processor_time_is_told(gallery: Gallery, tmp_path: Path) -> None:
    run = invent_run(tmp_path / "a", gallery.data)
    (run.path / "history.csv").write_text("epoch,seconds,processor_seconds,Recall@20\n5,9.0,0.0,0.1\n10,99.0,3.0,0.2\n")
    section = build_learning(gather([run.path]))
    assert isinstance(section, Section)
    assert "processor time" in section.lead


def test_runs_from_outside_have_no_curve(gallery: Gallery, tmp_path: Path) -> None:
    bare = invent_run(tmp_path / "bare", gallery.data, dim=3, history=())
    left_out = build_learning(gather([bare.path]))
    assert isinstance(left_out, LeftOut)
    section = build_learning(gather([bare.path, *gallery.students]))
    assert isinstance(section, Section)
    assert isinstance(section.parts[1], Table)
    first = section.parts[1].rows[1]
    assert [cell.text for cell in first[1:] if isinstance(cell, Cell)] == ["–"] * (len(first) - 1)


def test_the_analysis_that_is_given_is_drawn_in_the_colours_of_the_page(gallery: Gallery, tmp_path: Path) -> None:
    analysis = invent_analysis(tmp_path / "analysis.json", "toy", ["freqd-0", str(gallery.scratch.path), "stranger"])
    section = build_frequencies(gather(gallery.students, analysis=analysis))
    assert isinstance(section, Section)
    assert "cooccurrence graph" in section.lead
    chart, table = section.parts
    assert isinstance(chart, Chart)
    assert isinstance(table, Table)
    assert list(chart.legend) == [
        ("teacher (scratch wd 0.001, d 16)", 0), ("freqd bipartite α 0.2 wd 0.001, d 12", 1),
        ("scratch wd 0.001, d 4", 2), ("stranger", 3),
    ]  # fmt: skip
    assert [cell.colour for row in table.rows if isinstance(cell := row[0], Cell)] == [1, 2, 3]
    assert list(table.rows[0][1:]) == ["4", "0.2000", "2", "66.7%"]


def test_a_small_graph_is_analysed_here_one_run_a_setting(gallery: Gallery) -> None:
    section = build_frequencies(gallery.gather())
    assert isinstance(section, Section)
    assert isinstance(section.parts[1], Table)
    assert len(section.parts[1].rows) == 2
    students = [gallery.freqd[0], gallery.scratch]
    found = analyze_data(gallery.data, gallery.teacher, students, ["freqd", "scratch"], View())
    kept = [found.kept_in_all(student) for student in found.students]
    assert section.parts[1].rows[0][-1] == f"{kept[0]:.1%}"
    assert kept[0] > kept[1]


def test_what_is_missing_is_named(gallery: Gallery, monkeypatch: pytest.MonkeyPatch) -> None:
    without = build_frequencies(gather(gallery.students))
    assert isinstance(without, LeftOut)
    assert "--analysis" in without.remedy
    monkeypatch.setattr(sections, "SMALL_GRAPH", 10)
    large = build_frequencies(gallery.gather())
    assert isinstance(large, LeftOut)
    assert large.remedy.startswith("the graph has more than 10 entities: run 'lowpass analyze")


def test_a_name_that_two_settings_share_is_a_stranger(gallery: Gallery, tmp_path: Path) -> None:
    material = gather(gallery.students)
    twin = invent_run(tmp_path / "scratch", gallery.data, dim=3)
    doubled = [*material.groups, Group("twin", (twin,), 7)]
    assert match_groups(["scratch", "scratch", str(twin.path)], doubled) == [
        ("scratch", 8),
        ("scratch", 8),
        ("twin", 7),
    ]


def test_popularity_and_coverage_stand_beside_the_teachers(gallery: Gallery) -> None:
    material = gallery.gather()
    section = build_popularity(material, rank_all(material))
    assert isinstance(section, Section)
    table, chart = section.parts
    assert isinstance(table, Table)
    assert isinstance(chart, Chart)
    assert [len(row) for row in table.rows] == [6, 6, 6]
    teacher, _, scratch = table.rows
    assert (teacher[2], teacher[4]) == ("1.00×", "1.00×")
    assert teacher[5] == "1.000"
    own, chosen = (rank_run(run, gallery.data).items for run in (gallery.scratch, gallery.teacher))
    common = np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(own.tolist(), chosen.tolist(), strict=True)])
    assert scratch[5] == f"{common:.3f}"
    popularity = gallery.scratch.metrics["test"]["Popularity@20"]
    assert scratch[1] == f"{popularity:.1f}"
    assert scratch[2] == f"{popularity / gallery.teacher.metrics['test']['Popularity@20']:.2f}×"
    assert [name for name, _ in chart.legend] == [group.name for group in material.groups]


def test_without_data_the_table_is_left(gallery: Gallery, tmp_path: Path) -> None:
    section = build_popularity(gather(gallery.students), {})
    assert isinstance(section, Section)
    assert len(section.parts) == 1
    assert "With --data" in section.lead
    run = invent_run(tmp_path / "a", gallery.data)
    write_run(run.path, run.config, run.user_embeddings, run.item_embeddings, {})
    assert isinstance(build_popularity(gather([run.path]), {}), LeftOut)


def frontier_section(gallery: Gallery, **more: Any) -> Section:
    section = build_frontier(gather(gallery.students, frontier=invent_frontier(gallery.data, **more)))
    assert isinstance(section, Section)
    return section


def test_the_recommended_candidate_stands_out(gallery: Gallery) -> None:
    section = frontier_section(gallery)
    assert "freqd-d4-int8 is recommended within the limits min kept 0.95." in section.lead
    reason, chart, best, others, commands = section.parts
    assert reason == Text("Take freqd-d4-int8.")
    assert isinstance(chart, Chart)
    assert list(chart.legend) == [("teacher", 0), ("svd", 3), ("freqd", 1)]
    assert isinstance(best, Table)
    assert [isinstance(row[0], Cell) and (row[0].text, row[0].emphasis) for row in best.rows] == [
        ("teacher-float32", ""), ("freqd-d4-int8", "best"),
    ]  # fmt: skip
    assert list(best.rows[1][1:]) == [
        "2", Cell("97.0%", share=0.97), "96.0% to 98.0%", "–", "4", "16", "15", "30", "teacher + ease", "7", "yes",
    ]  # fmt: skip
    assert isinstance(others, Table)
    assert (others.fold, others.caption, others.rows[0][-1]) == (True, "The other 1 candidates", "no")
    assert commands == Text("lowpass export frontier", title="What to run next")


def test_where_nothing_fits_the_page_says_so(gallery: Gallery) -> None:
    section = frontier_section(gallery, recommended=None, limits={"max_p99_ms": 0.001, "min_kept": None}, commands=())
    assert "No candidate fits within the limits max p99 ms 0.001." in section.lead
    assert not any(isinstance(part, Text) and part.title for part in section.parts)


def test_without_a_frontier_the_command_is_named(gallery: Gallery) -> None:
    left_out = build_frontier(Material("toy", (), None))
    assert isinstance(left_out, LeftOut)
    assert "lowpass frontier" in left_out.remedy


def test_only_what_differs_is_compared_and_everything_can_be_read(gallery: Gallery) -> None:
    runs, apart, *everything = build_settings(gather(gallery.students)).parts
    assert isinstance(runs, Table)
    assert [row[1] for row in runs.rows] == ["0", "0, 1", "0"]
    assert isinstance(apart, Table)
    assert [list(row) for row in apart.rows] == [
        ["method", "scratch", "freqd", "scratch"], ["dim", "16", "12", "4"], ["variant", "–", "bipartite", "–"],
        ["alpha", "–", "0.2", "–"],
    ]  # fmt: skip
    assert [part.title for part in everything if isinstance(part, Text)] == [
        str(gallery.teacher.path), *map(str, gallery.students),
    ]  # fmt: skip
    first = everything[0]
    assert isinstance(first, Text)
    assert json.loads(first.text) == gallery.teacher.config


def test_one_setting_has_nothing_that_sets_it_apart(gallery: Gallery) -> None:
    parts = build_settings(gather([gallery.scratch.path])).parts
    assert [type(part) for part in parts] == [Table, Text]
