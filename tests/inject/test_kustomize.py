"""The Kustomize components, applied by kubectl."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from joulescope.inject.documents import inject_text
from joulescope.inject.pod import DEFAULT_IMAGE, Injection
from tests.kubernetes import VERSIONS, schema_errors
from tests.requirements import need_program
from tools.kustomize import FOLDER, files

EXAMPLES = sorted((FOLDER / "examples").glob("*/kustomization.yaml"))
IMAGES = {"deployment": "registry.example/joulescope:0.1.0"}
CONTAINERS = {"other-container": "server"}
INJECT_LABEL = "joulescope/inject"


def kustomize(example: Path) -> dict[str, Any]:
    """The one workload that kubectl builds of an example."""
    built = subprocess.run(
        [need_program("kubectl"), "kustomize", str(example.parent)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (workload,) = yaml.safe_load_all(built.stdout)
    return dict(workload)


def injected(example: Path) -> dict[str, Any]:
    """What `joulescope inject` makes of the same."""
    name = example.parent.name
    injection = Injection(IMAGES.get(name, DEFAULT_IMAGE))
    text = (example.parent / "vllm.yaml").read_text()
    return dict(yaml.safe_load(inject_text(text, injection, CONTAINERS.get(name, "")).text))


def _by_name(node: Any) -> Any:
    """Lists whose entries have names, sorted: Kustomize and inject differ in order where none matters."""
    if isinstance(node, dict):
        return {key: _by_name(value) for key, value in node.items() if key != INJECT_LABEL}
    if isinstance(node, list):
        parts = [_by_name(each) for each in node]
        named = all(isinstance(each, dict) and "name" in each for each in parts)
        return sorted(parts, key=lambda each: each["name"]) if named else parts
    return node


def _template(workload: dict[str, Any]) -> dict[str, Any]:
    spec = workload["spec"]
    found: dict[str, Any] = spec.get("template") or spec["leaderWorkerTemplate"]["leaderTemplate"]
    return found


def test_components_are_what_inject_says() -> None:
    """`make deploy` writes them."""
    for name, text in files().items():
        assert (FOLDER / name).read_text() == text, name


@pytest.mark.real
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
def test_kustomize_and_inject_make_the_same(example: Path) -> None:
    """Structure for structure; the label by which the component finds the workload is the user's."""
    mine, theirs = _by_name(injected(example)), _by_name(kustomize(example))
    mine["metadata"].pop("labels", None)
    theirs["metadata"].pop("labels", None)
    assert json.dumps(theirs, sort_keys=True, indent=1) == json.dumps(mine, sort_keys=True, indent=1)


@pytest.mark.real
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_sidecar_starts_before_other_init_containers(example: Path) -> None:
    """Kustomize puts what a patch adds in front."""
    names = [each["name"] for each in _template(kustomize(example))["spec"]["initContainers"]]
    assert names[:2] == ["joulescope-hook", "joulescope"]


@pytest.mark.real
@pytest.mark.parametrize("version", VERSIONS)
def test_schemas_of_kubernetes_have_nothing_against_it(version: str) -> None:
    """The kinds that they know."""
    for example in EXAMPLES:
        workload = kustomize(example)
        if workload["kind"] != "LeaderWorkerSet":
            assert schema_errors(workload, version) == []


@pytest.mark.real
def test_workloads_without_the_label_are_left_alone(tmp_path: Path) -> None:
    """A router beside vLLM, in the same kustomization."""
    router = yaml.safe_load((FOLDER / "examples" / "deployment" / "vllm.yaml").read_text())
    del router["metadata"]["labels"]
    (tmp_path / "router.yaml").write_text(yaml.safe_dump(router))
    (tmp_path / "component").mkdir()
    for name, text in files().items():
        if name.startswith("component/"):
            (tmp_path / name).write_text(text)
    (tmp_path / "kustomization.yaml").write_text("resources: [router.yaml]\ncomponents: [component]\n")
    assert kustomize(tmp_path / "kustomization.yaml") == router
