from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from serve.bench import figures
from serve.bench.comparison import Role
from serve.bench.figures import draw_comparison, draw_latencies
from serve.bench.report import headline
from tests.serve.bench.toy_measurements import PQ, STUDENT, TEACHER

PNG = b"\x89PNG"


def test_latencies_are_drawn() -> None:
    drawn = draw_latencies({"a": np.array([3.0, 1.0, 2.0]), "b": np.array([5.0])})
    assert drawn.startswith(PNG)


def test_the_comparison_says_its_finding_and_no_two_texts_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *arguments: object, **options: object) -> None:
        kept.append(figure)
        save(figure, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Figure, "savefig", keep)
    other = replace(STUDENT, role=Role.OTHER, name="a-model-with-a-very-long-name", quality={}, item_bytes=123_456)
    svd = replace(STUDENT, role=Role.SVD, quality={"recall@20": 0.0612, "convention": "toy"})
    measurements = [TEACHER, STUDENT, svd, PQ, other]
    assert draw_comparison(measurements).startswith(PNG)
    (figure,) = kept
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    words = [text.get_text().strip() for text in texts]
    assert headline(measurements) in words
    assert {"teacher", "student", "SVD", "PQ", "100 %", "80 %", "20 × fewer", "15 × faster", "5 × more"} <= set(words)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in texts]
    for place, one in enumerate(boxes):
        for number in range(place):
            assert not one.overlaps(boxes[number]), (words[place], words[number])
        assert one.x1 <= figure.bbox.x1, words[place]


def test_colours_tell_the_roles_apart() -> None:
    assert set(figures.COLOURS) == set(Role)
    assert len(set(figures.COLOURS.values())) == len(Role)
