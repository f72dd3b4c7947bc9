from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from distill.data.interactions import save_interactions
from distill.data.synthetic import SyntheticOptions, synthesize
from jobs.errors import SpecError
from jobs.spec.reading import load_spec

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def test_the_example_is_a_spec_of_the_demos_data(tmp_path: Path) -> None:
    path = tmp_path / "deploy" / "job.toml"
    path.parent.mkdir()
    shutil.copyfile(DEPLOY / "job.toml", path)
    with pytest.raises(SpecError, match=r"data\.source: .*demo/data: no such file") as caught:
        load_spec(path)
    assert len(str(caught.value).splitlines()) == 1
    save_interactions(synthesize(SyntheticOptions(50, 40, 4)), tmp_path / "demo" / "data")
    spec = load_spec(path)
    assert (spec.name, spec.model, spec.data.is_prepared) == ("demo", "student", True)
    assert spec.teacher.build().dim == 320
    path.write_text(path.read_text().replace("[teacher]", 'split = "random"\n[teacher]'))
    with pytest.raises(SpecError, match=r"data\.source: is prepared already, so that split means nothing"):
        load_spec(path)
