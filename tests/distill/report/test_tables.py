from __future__ import annotations

import numpy as np
import pytest

from distill.data.interactions import Interactions
from distill.evaluation.comparison import compare_runs
from distill.graph.adjacency import build_graph
from distill.graph.analysis import analyze, build_groups
from distill.graph.spectrum import exact_spectrum
from distill.report.material import Curve
from distill.report.tables import (
    Cell,
    Table,
    choose_times,
    flatten_settings,
    mean_and_spread,
    render_analysis,
    render_comparison,
    render_markdown,
)
from distill.run import Run
from tests.distill.evaluation.test_comparison import build_run
from tests.distill.graph.test_analysis import make_run
from tests.distill.toy import build_random


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture
def data(rng: np.random.Generator) -> Interactions:
    return build_random(rng)


def test_words_stand_on_the_left_numbers_on_the_right_and_nothing_is_read_as_a_number() -> None:
    table = Table("", ["run", "seeds", "p"], [[Cell("a", "best", colour=3), "007", "1e-3"], ["long name", "", "–"]])
    assert render_markdown(table).splitlines() == [
        "| run       |   seeds |    p |",
        "|:----------|--------:|-----:|",
        "| a         |     007 | 1e-3 |",
        "| long name |         |    – |",
    ]


def test_the_comparison_shows_a_spread_only_for_several_seeds() -> None:
    runs = [build_run(0.1, seed=0), build_run(0.3, seed=1), build_run(0.5, seed=0, method="scratch")]
    table = render_comparison(compare_runs(runs)).splitlines()
    assert len(table) == 4
    assert cells(table[2])[:4] == ["freqd bipartite linear cosine β 0.5 wd 0.001", "20", "2", "0.2000 ± 0.1414"]
    assert cells(table[3])[:5] == ["scratch wd 0.001", "20", "1", "0.5000", "0.2500"]
    assert len({line.count("|") for line in table}) == 1
    assert len({len(line) for line in table}) == 1, "padded"


def test_a_missing_report_is_a_dash() -> None:
    run = build_run(0.5, seed=None, method="imported")
    config = {key: value for key, value in run.config.items() if key not in {"training", "method_settings"}}
    bare = Run(run.path, config, run.user_embeddings, run.item_embeddings, {"test": run.metrics["test"]})
    assert cells(render_comparison(compare_runs([bare])).splitlines()[2])[3:6] == ["–", "–", "0.5000"]


def test_an_analysis_names_runs_and_their_quality(rng: np.random.Generator, data: Interactions) -> None:
    teacher = make_run(rng.normal(size=(55, 6)), 30)
    students = [
        make_run(rng.normal(size=(55, 2)), 30, {"test": {"Recall@20": 0.25}}),
        make_run(rng.normal(size=(55, 3)), 30),
    ]
    groups = build_groups(build_graph(data, "bipartite", 5), 4, "equal-width", rng)
    analysis = analyze(groups, teacher, students, ["fd", "freqd"])
    lines = render_analysis(analysis).splitlines()
    assert cells(lines[0]) == ["run", "d", "test Recall@20", "loss", "kept"]
    assert cells(lines[2])[:3] == ["fd", "2", "0.2500"]
    assert cells(lines[3])[:3] == ["freqd", "3", "–"]
    assert cells(lines[3])[4] == f"{analysis.kept_in_all(analysis.students[1]):.1%}"
    assert cells(lines[5])[-2:] == ["fd keeps", "freqd keeps"]
    assert [cells(line)[0] for line in lines[7:]] == ["0.000–0.500", "0.500–1.000", "1.000–1.500", "1.500–2.000"]
    shares = np.array([[float(cell) for cell in cells(line)[1:3]] for line in lines[7:]])
    np.testing.assert_allclose(shares.sum(axis=0), 1, atol=2e-4)


def test_a_group_the_teacher_has_nothing_in_is_a_dash(rng: np.random.Generator, data: Interactions) -> None:
    graph = build_graph(data, "bipartite", 5)
    teacher = make_run(exact_spectrum(graph).eigenvectors[:, :1], 30)
    student = make_run(rng.normal(size=(55, 1)), 30)
    analysis = analyze(build_groups(graph, 5, "equal-width", rng), teacher, [student], ["student"])
    assert cells(render_analysis(analysis).splitlines()[-1])[-2:] == ["0.0000", "–"]


@pytest.mark.parametrize(("values", "text"), [([], "–"), ([0.25], "0.2500"), ([0.1, 0.3], "0.2000 ± 0.1414")])
def test_a_spread_is_shown_of_several_values_only(values: list[float], text: str) -> None:
    assert mean_and_spread(values) == text


def curve_from(first: float, last: float) -> Curve:
    return Curve(np.array([1.0, 2.0]), np.array([first, last]), np.array([0.1, 0.2]))


@pytest.mark.parametrize(
    ("spans", "times"),
    [
        ([(0.3, 4.5)], [0.5, 1, 2, 4.5]),
        ([(0.3, 4.5), (3.0, 60.0)], [2, 5, 10, 20, 50, 60]),
        ([(0.01, 900.0)], [20, 50, 100, 200, 500, 900]),
        ([(7.0, 7.0)], [7.0]),
    ],
)
def test_times_are_round_and_end_with_the_last_run(spans: list[tuple[float, float]], times: list[float]) -> None:
    assert choose_times([curve_from(*span) for span in spans]) == pytest.approx(times)


def test_nested_settings_keep_their_part_but_for_the_two_there_always_are() -> None:
    config = {
        "dim": 4, "start": "svd", "seed": 0, "training": {"epochs": 9}, "method_settings": {"ce": {"temperature": 2.0}},
        "data": {"name": "toy"},
    }  # fmt: skip
    assert flatten_settings(config) == {
        "dim": "4", "start": "svd", "seed": "0", "epochs": "9", "ce.temperature": "2.0", "data.name": "toy",
    }  # fmt: skip
