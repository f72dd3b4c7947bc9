"""The chart as Helm sees it: its values, what it renders, and what Helm says of it."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy" / "helm" / "lowpass"
RULES, DASHBOARDS = ROOT / "deploy" / "prometheus", ROOT / "deploy" / "grafana" / "dashboards"
NAMESPACE, RELEASE = "recs", "lp"

helm = pytest.importorskip("helm_python", reason="Helm is not installed: pip install helm-python-sdk")


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that comes twice; YAML's own loader keeps the last one and says nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key) for key, _ in node.value]
        assert len(names) == len(set(names)), f"a key comes twice: {names}"
        return super().construct_mapping(node, deep)


@cache
def values_of(name: str) -> dict[str, Any]:
    """Values of `tests/deploy/helm/values/NAME.yaml`."""
    read = yaml.safe_load((Path(__file__).parent / "values" / f"{name}.yaml").read_text())
    return dict(read or {})


def render(values: dict[str, Any], chart: Path = CHART) -> list[dict[str, Any]]:
    """Every object that the chart makes of values.

    Raises:
        helm_python.HelmError: A value is refused.
    """
    with helm.Chart.load(chart) as loaded:
        merged = loaded.merge_values(values)
        loaded.validate_schema(merged)
        files = loaded.render(merged, name=RELEASE, namespace=NAMESPACE)
    return [
        document
        for path, text in sorted(files.items())
        if path.endswith(".yaml")
        for document in yaml.load_all(text, StrictLoader)
        if document
    ]


def kinds(objects: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [each for each in objects if each["kind"] == kind]


def copy_without_dangling(target: Path) -> Path:
    """Copy the chart with what its links lead to in their place, as `helm package` does."""
    shutil.copytree(CHART, target, ignore_dangling_symlinks=True)
    return target
