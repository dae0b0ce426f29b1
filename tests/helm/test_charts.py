"""The charts, rendered by Helm for every documented set of values."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import helm_python
import kubernetes_validate
import pytest
import yaml

from tests.helm.charts import CHART, CHARTS, ROOT, VALUE_SETS, documents, render, values_of
from tests.kubernetes import VERSIONS, restricted_errors, schema_errors
from tests.requirements import need_program
from tools.chart_docs import page
from tools.chart_docs import values_of as chart_values

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).with_name("golden")
CUSTOM = {"PodMonitor", "PrometheusRule", "Certificate"}


@pytest.fixture(params=VALUE_SETS, ids=lambda path: path.name.removesuffix("-values.yaml"))
def value_set(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def _templates(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        each["spec"]["template"] if each["kind"] == "Deployment" else each
        for each in objects
        if each["kind"] in ("Deployment", "Pod")
    ]


def test_what_is_rendered_is_what_was_reviewed(value_set: Path) -> None:
    """All but dashboards and rules, which are files of their own. UPDATE_GOLDEN=1 writes it anew."""
    files = render(values_of(value_set))
    kept = {
        name: text
        for name, text in files.items()
        if name.split("/")[-1] not in ("dashboards.yaml", "prometheusrule.yaml")
    }
    found = "".join(f"# {name}\n{text.strip()}\n" for name, text in kept.items())
    golden = GOLDEN / f"{value_set.name.removesuffix('-values.yaml')}.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(found)
    assert found == golden.read_text()


def test_helm_has_nothing_against_it(value_set: Path) -> None:
    """Its linter, in its strict mode; it would like an icon."""
    said = helm_python.lint(str(CHART), values_of(value_set), strict=True)
    assert [each["error"] for each in said["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", VERSIONS)
def test_schemas_of_kubernetes_have_nothing_against_it(value_set: Path, version: str) -> None:
    """Objects of the Prometheus Operator have no schema here; their rules are looked at below."""
    for document in documents(render(values_of(value_set))):
        if document["kind"] in CUSTOM:
            with pytest.raises(kubernetes_validate.SchemaNotFoundError):
                schema_errors(document, version)
        elif value_set.name.startswith("dra") and float(version[2:]) < 31:
            continue  # another form of claims, behind a gate; the page says 1.34
        else:
            assert schema_errors(document, version) == []


def test_pods_are_restricted(value_set: Path) -> None:
    """vLLM's too, and the one that tests."""
    for template in _templates(documents(render(values_of(value_set)))):
        assert restricted_errors(template) == []
        assert template["spec"]["automountServiceAccountToken"] is False


def test_no_probe_can_take_vllm_out_of_service(value_set: Path) -> None:
    """The sidecar has none."""
    for template in _templates(documents(render(values_of(value_set)))):
        for container in template["spec"].get("initContainers", ()):
            assert not {"livenessProbe", "readinessProbe", "startupProbe"} & set(container)


def test_every_value_set_differs_from_the_others() -> None:
    """Each shows something: at least six, and no two alike."""
    rendered = {path: json.dumps(documents(render(values_of(path))), sort_keys=True) for path in VALUE_SETS}
    assert len(set(rendered.values())) == len(VALUE_SETS) >= 6


# ------------------------------------------------------------------------- rules, dashboards, package


def test_rules_are_those_of_the_repository_with_the_users_runbooks() -> None:
    """Every alert leads to where the user publishes them."""
    url = "https://wiki.example/runbooks/"
    files = render({"rules": {"runbooksUrl": url}})
    groups = yaml.safe_load(files["templates/prometheusrule.yaml"])["spec"]["groups"]
    sources = [
        yaml.safe_load((ROOT / "deploy" / "prometheus" / f"joulescope.{name}.yaml").read_text())["groups"]
        for name in ("rules", "alerts")
    ]
    text = json.dumps([*sources[0], *sources[1]]).replace("https://joulescope.invalid/docs/runbooks/", url)
    assert groups == json.loads(text)
    links = [
        rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule
    ]
    assert links
    assert all(link.startswith(url) for link in links)


@pytest.mark.real
def test_prometheus_has_nothing_against_the_rules(tmp_path: Path) -> None:
    """As the operator would hand them over."""
    groups = yaml.safe_load(render({})["templates/prometheusrule.yaml"])["spec"]["groups"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    said = subprocess.run(
        [need_program("promtool"), "check", "rules", str(tmp_path / "rules.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr


def test_dashboards_are_those_of_the_repository_and_small_enough() -> None:
    """To the byte but for the last line's end; a ConfigMap holds 1 MiB."""
    maps = documents({"dashboards": render({})["templates/dashboards.yaml"]})
    sources = {path.name: path.read_text() for path in (ROOT / "grafana" / "dashboards").glob("*.json")}
    found = {name: text for each in maps for name, text in each["data"].items()}
    assert found.keys() == sources.keys()
    assert all(found[name].rstrip() == sources[name].rstrip() for name in sources)
    assert all(len(json.dumps(each)) < 2**20 for each in maps)


def test_a_package_has_all_that_links_lead_to(tmp_path: Path) -> None:
    """From an archive the same is rendered."""
    archive = helm_python.package(str(CHART), destination=str(tmp_path))
    packaged = helm_python.Chart.load(archive)
    values = values_of(CHART / "ci" / "complete-values.yaml")
    rendered = packaged.render(values, name="demo", namespace="inference")
    assert {k.partition("/")[2]: v for k, v in sorted(rendered.items()) if v.strip()} == render(values)


WRONG = {
    "unknown of vLLM": ({"vllm": {"gpu": 1}}, "gpu"),
    "a name of the pod's": ({"joulescope": {"env": {"POD_NAME": "a"}}}, "POD_NAME"),
    "a setting that the pod depends on": ({"joulescope": {"config": {"listen": "a"}}}, "listen"),
    "two web configurations": ({"joulescope": {"web": {"configSecret": "a", "tlsSecret": "b"}}}, "tlsSecret"),
    "an endpoint of gRPC": ({"joulescope": {"otlp": {"endpoint": "collector:4317"}}}, "endpoint"),
    "no issuer": ({"certificate": {"enabled": True}}, "issuerRef"),
    "a certificate for nothing": (
        {"certificate": {"enabled": True, "issuerRef": {"name": "a"}}},
        "joulescope.web.tlsSecret",
    ),
    "interval": ({"podMonitor": {"interval": "often"}}, "interval"),
    "size": ({"vllm": {"models": {"size": "big"}}}, "size"),
    "port": ({"vllm": {"service": {"port": 0}}}, "port"),
    "unknown": ({"podMonitors": {}}, "podMonitors"),
    "unknown of the sidecar": ({"joulescope": {"img": {}}}, "img"),
    "gpu access": ({"joulescope": {"gpuAccess": "host"}}, "gpuAccess"),
    "no claim": ({"joulescope": {"gpuAccess": "dra"}}, "claim"),
    "claim for nothing": ({"joulescope": {"claim": "gpu"}}, "claim"),
    "root": ({"vllm": {"runAsUser": 0}}, "runAsUser"),
    "runbooks without a slash": ({"rules": {"runbooksUrl": "https://wiki.example"}}, "runbooksUrl"),
    "digest": ({"joulescope": {"image": {"digest": "latest"}}}, "digest"),
    "nobody may scrape": ({"networkPolicy": {"from": []}}, "from"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_are_refused_by_name(case: str) -> None:
    """By the schema, before anything is rendered."""
    values, named = WRONG[case]
    with pytest.raises(helm_python.HelmError, match=named):
        render(values)


def test_notes_say_what_is_left_to_do() -> None:
    """An image that is in no registry, runbooks that lead nowhere; nothing once that is mended."""
    assert "is in no registry" in render({})["templates/NOTES.txt"]
    assert "set rules.runbooksUrl" in render({})["templates/NOTES.txt"]
    complete = render(values_of(CHART / "ci" / "complete-values.yaml"))["templates/NOTES.txt"]
    assert "registry." not in complete.replace("registry.example", "")
    assert "runbooksUrl" not in complete


@pytest.mark.parametrize("chart", ["joulescope", "joulescope-sidecar"])
def test_the_page_of_each_chart_is_fresh(chart: str) -> None:
    """`make deploy` writes it from the values and their comments."""
    assert (CHARTS / chart / "README.md").read_text() == page(CHARTS / chart)


@pytest.mark.parametrize("chart", ["joulescope", "joulescope-sidecar"])
def test_every_value_is_described(chart: str) -> None:
    """On its own or by the key above it."""
    assert [value.path for value in chart_values(CHARTS / chart) if not value.text] == []


def test_versions_are_the_packages() -> None:
    """Of both charts, of what they depend on, and of what they say of themselves."""
    import joulescope

    for name in ("joulescope", "joulescope-sidecar"):
        facts = yaml.safe_load((CHARTS / name / "Chart.yaml").read_text())
        assert facts["version"] == facts["appVersion"] == joulescope.__version__
        assert all(each["version"] == joulescope.__version__ for each in facts.get("dependencies", ()))
    plugin = yaml.safe_load((CHARTS / "post-renderer" / "plugin.yaml").read_text())
    assert plugin["version"] == joulescope.__version__
    injected = documents(render({"vllm": {"enabled": True}}))
    (deployment,) = (each for each in injected if each["kind"] == "Deployment")
    annotations = deployment["spec"]["template"]["metadata"]["annotations"]
    assert annotations == {"joulescope/injected": joulescope.__version__}
