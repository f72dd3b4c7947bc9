"""The chart: Helm accepts it, Kubernetes' schemas accept what it makes, the product accepts the options in it."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.helm.charts import (
    CHART,
    DASHBOARDS,
    NAMESPACE,
    ROOT,
    RULES,
    copy_without_dangling,
    helm,
    kinds,
    render,
    values_of,
)
from tests.deploy.product import check_job, check_words, serve_options

NAMES = ("minimal", "try", "everything", "shards")
OPERATORS = {"ServiceMonitor", "PrometheusRule"}


@pytest.fixture(scope="module")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_without_dangling(tmp_path_factory.mktemp("chart") / "lowpass")


@pytest.fixture(scope="module")
def made(chart: Path) -> dict[str, list[dict[str, Any]]]:
    """Values file → objects."""
    return {name: render(values_of(name), chart) for name in NAMES}


def pods(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The spec of every pod, of whatever makes it."""
    found = [each["spec"]["template"]["spec"] for each in kinds(objects, "Deployment")]
    found += [each["spec"]["jobTemplate"]["spec"]["template"]["spec"] for each in kinds(objects, "CronJob")]
    return found + [each["spec"] for each in kinds(objects, "Pod")]


def config_of(objects: list[dict[str, Any]], folder: Path) -> list[Any]:
    """Options of every `serve.toml`, as the product reads them."""
    found = []
    for each in kinds(objects, "ConfigMap"):
        if text := each["data"].get("serve.toml"):
            (folder / "serve.toml").write_text(text)
            fake = ["--fake"] if "repository" not in text else []
            found.append(serve_options(folder / "serve.toml", *fake))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_helm_has_nothing_to_say(chart: Path, name: str) -> None:
    report = helm.lint(chart, values_of(name), strict=True, namespace=NAMESPACE)
    assert report["errors"] == []
    assert [each["error"] for each in report["messages"]] == ["icon is recommended"]


def test_helm_accepts_the_chart_where_it_lies() -> None:
    assert CHART.joinpath("files/rules").resolve() == RULES
    assert CHART.joinpath("files/dashboards").resolve() == DASHBOARDS
    assert helm.lint(CHART, values_of("everything"), strict=True)["errors"] == []


@pytest.mark.parametrize("version", ["1.30", "1.37"])
@pytest.mark.parametrize("name", NAMES)
def test_kubernetes_knows_every_field(made: dict[str, list[dict[str, Any]]], name: str, version: str) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    native = [each for each in made[name] if each["kind"] not in OPERATORS]
    assert len(native) >= 4
    for each in native:
        schemas.validate(each, version, strict=True)


def test_an_unknown_field_would_be_seen(made: dict[str, list[dict[str, Any]]]) -> None:
    schemas = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    (wrong,) = copy.deepcopy(kinds(made["minimal"], "Deployment"))
    container = wrong["spec"]["template"]["spec"]["containers"][0]
    container["readinesProbe"] = container.pop("readinessProbe")
    with pytest.raises(schemas.ValidationError):
        schemas.validate(wrong, "1.37", strict=True)


def test_what_each_values_file_makes(made: dict[str, list[dict[str, Any]]]) -> None:
    counts = {
        name: {kind: len(kinds(objects, kind)) for kind in sorted({each["kind"] for each in objects})}
        for name, objects in made.items()
    }
    assert counts["minimal"] == {
        "ConfigMap": 1,
        "Deployment": 1,
        "NetworkPolicy": 1,
        "Pod": 1,
        "PodDisruptionBudget": 1,
        "Service": 1,
        "ServiceAccount": 1,
    }
    assert counts["try"] == {"ConfigMap": 1, "Deployment": 1, "Pod": 1, "Service": 1}
    everything = {"CronJob", "HorizontalPodAutoscaler", "PersistentVolumeClaim", "ServiceMonitor"}
    assert everything <= set(counts["everything"])
    for kind in ("Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"):
        assert counts["shards"][kind] == 3, kind


@pytest.mark.parametrize("name", NAMES)
def test_no_pod_is_root_or_writes_its_image_or_holds_a_token(made: dict[str, list[dict[str, Any]]], name: str) -> None:
    for pod in pods(made[name]):
        assert pod["automountServiceAccountToken"] is False
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001)
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            mounts = {mount["name"] for mount in container.get("volumeMounts", ())}
            assert mounts == {volume["name"] for volume in pod.get("volumes", ())}


@pytest.mark.parametrize("name", ["minimal", "try", "everything", "shards"])
def test_the_product_takes_the_options(made: dict[str, list[dict[str, Any]]], name: str, tmp_path: Path) -> None:
    for options in config_of(made[name], tmp_path):
        assert options.metrics_address == "0.0.0.0:9464"
    for container in (each for pod in pods(made[name]) for each in pod["containers"] if each["name"] != "job"):
        check_words(container["args"])


def test_the_job_is_one_that_the_product_takes(made: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    (job,) = kinds(made["everything"], "CronJob")
    (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    check_words(container["args"])
    (text,) = [
        each["data"]["job.toml"] for each in kinds(made["everything"], "ConfigMap") if "job.toml" in each["data"]
    ]
    check_job(text, tmp_path)


def test_values_become_options(made: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    (options,) = config_of(made["everything"], tmp_path)
    assert (options.threads, options.max_message_bytes, options.max_wait, options.watch) == (4, 2097152, 0.5, 2.0)
    assert options.models == ("student", "teacher:stable")
    assert options.reflection is False
    assert (options.address, str(options.repository)) == ("0.0.0.0:8443", "/models")
    assert str(options.api_keys) == "/etc/lowpass/keys/keys.txt"
    assert str(options.tls_client_ca) == "/etc/lowpass/tls/ca.crt"


@pytest.mark.parametrize("name", ["minimal", "try", "everything"])
def test_ports_probes_and_files_are_those_that_the_server_opens(
    made: dict[str, list[dict[str, Any]]], name: str, tmp_path: Path
) -> None:
    (options,) = config_of(made[name], tmp_path)
    (pod,) = [each["spec"]["template"]["spec"] for each in kinds(made[name], "Deployment")]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    bound = {
        "grpc": options.address,
        "metrics": options.metrics_address,
        "health": options.health_address,
    }
    assert {port: int(address.rpartition(":")[2]) for port, address in bound.items()} == ports
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"]["port"] == ports["health"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    paths = [options.repository, options.api_keys, options.tls_cert, options.tls_key, options.tls_client_ca]
    for path in filter(None, paths):
        assert any(Path(path).is_relative_to(mount) for mount in mounts), path
    stop = container["lifecycle"]["preStop"]["sleep"]["seconds"] + options.drain_wait + options.grace
    assert stop < pod["terminationGracePeriodSeconds"]
    (service,) = kinds(made[name], "Service")
    assert service["spec"]["clusterIP"] == "None"
    assert {port["targetPort"] for port in service["spec"]["ports"]} == {"grpc", "metrics"}


@pytest.mark.parametrize("name", NAMES)
def test_what_selects_finds_what_it_should(made: dict[str, list[dict[str, Any]]], name: str) -> None:
    servers = [each["spec"]["template"]["metadata"]["labels"] for each in kinds(made[name], "Deployment")]
    others = [each["metadata"]["labels"] for each in kinds(made[name], "Pod")]
    others += [
        each["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"] for each in kinds(made[name], "CronJob")
    ]

    def found(selector: dict[str, str], labels: list[dict[str, str]]) -> int:
        return sum(selector.items() <= each.items() for each in labels)

    for kind in ("Deployment", "Service", "PodDisruptionBudget"):
        for each in kinds(made[name], kind):
            selector = each["spec"]["selector"]
            selector = selector.get("matchLabels", selector)
            assert (found(selector, servers), found(selector, others)) == (1, 0), kind
    for policy in kinds(made[name], "NetworkPolicy"):
        assert found(policy["spec"]["podSelector"]["matchLabels"], servers) == len(servers)
    services = [each["metadata"]["labels"] for each in kinds(made[name], "Service")]
    for monitor in kinds(made[name], "ServiceMonitor"):
        assert found(monitor["spec"]["selector"]["matchLabels"], services) == len(services)
        assert {each[monitor["spec"]["jobLabel"]] for each in services} == {"lowpass"}


def test_each_shard_serves_its_own_folder(made: dict[str, list[dict[str, Any]]]) -> None:
    texts = [each["data"]["serve.toml"] for each in kinds(made["shards"], "ConfigMap") if "serve.toml" in each["data"]]
    assert [f'repository = "s3://models/shop/shard-{shard}-of-3"' in text for shard, text in enumerate(texts)] == [
        True,
        True,
        True,
    ]
    (rules,) = [each["spec"]["egress"] for each in kinds(made["shards"], "NetworkPolicy")]
    assert {"protocol": "TCP", "port": 8333} in [port for rule in rules for port in rule["ports"]]


def test_a_changed_option_makes_other_pods_and_nothing_else_does(chart: Path) -> None:
    def checksum(values: dict[str, Any]) -> str:
        (deployment,) = kinds(render(values, chart), "Deployment")
        return str(deployment["spec"]["template"]["metadata"]["annotations"]["checksum/config"])

    minimal = values_of("minimal")
    assert checksum(minimal) == checksum({**minimal, "replicas": 7})
    assert checksum(minimal) != checksum({**minimal, "serve": {"options": {"threads": 3}}})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"repository": {}}, "give one place of models"),
        ({"repository": {"fake": True, "s3": {"url": "s3://a"}}}, "give one place of models"),
        ({"repository": {"fake": True}, "userShards": 2}, "has no shards"),
        ({"job": {"enabled": True, "workClaim": "w"}}, "job.spec: is empty"),
        ({"job": {"enabled": True, "spec": "x"}}, "job.workClaim: is empty"),
        ({"tls": {"clientCa": True}}, "needs tls.secret"),
        ({"replica": 3}, "replica"),
        ({"serve": {"options": {"address": "0.0.0.0:1"}}}, "address"),
        ({"repository": {"s3": {"url": "http://x"}}}, "url"),
    ],
)
def test_wrong_values_are_refused_by_name(chart: Path, change: dict[str, Any], says: str) -> None:
    values = {"repository": {"persistence": {"existingClaim": "models"}}} if "repository" not in change else {}
    with pytest.raises(helm.HelmError, match=says):
        render({**values, **change}, chart)


def test_every_default_is_in_the_schema_and_nothing_is_made_of_secrets() -> None:
    schema, values = (
        json.loads((CHART / "values.schema.json").read_text()),
        yaml.safe_load((CHART / "values.yaml").read_text()),
    )

    def compare(part: dict[str, Any], given: dict[str, Any], place: str) -> None:
        known = part.get("properties")
        if known is None:
            return
        assert set(given) == set(known) - {"global"}, place
        for name, value in given.items():
            if isinstance(value, dict):
                compare(known[name], value, f"{place}.{name}")

    compare(schema, values, "values")
    assert not any("kind: Secret" in path.read_text() for path in CHART.rglob("*.yaml"))


def test_the_values_of_the_page_are_taken(chart: Path) -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "operating.md").read_text(), re.M | re.S)
    values = yaml.safe_load(shown)
    values["job"]["spec"] = 'name = "shop"\n'  # by --set-file
    objects = render(values, chart)
    assert {"CronJob", "Deployment", "ServiceMonitor"} <= {each["kind"] for each in objects}


def test_rules_and_dashboards_are_the_ones_of_deploy() -> None:
    objects = render(values_of("everything"))
    rules = kinds(objects, "PrometheusRule")
    sources = [yaml.safe_load(path.read_text()) for path in sorted(RULES.glob("*.rules.yml"))]
    assert len(rules) == len(sources) >= 1
    moved = json.loads(json.dumps(sources).replace("docs/runbooks.md", "https://wiki.example/runbooks"))
    assert [each["spec"] for each in rules] == moved
    boards = [each["data"] for each in kinds(objects, "ConfigMap") if "dashboard" in each["metadata"]["name"]]
    assert [json.loads(text) for data in boards for text in data.values()] == [
        json.loads(path.read_text()) for path in sorted(DASHBOARDS.glob("*.json"))
    ]
    assert boards or not DASHBOARDS.exists()
