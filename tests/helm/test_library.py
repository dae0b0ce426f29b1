"""The library chart in a chart of a user's: what it adds is what `joulescope inject` adds."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import helm_python
import pytest

from joulescope.inject.kinds import PodTemplate
from joulescope.inject.patch import inject
from joulescope.inject.pod import Injection
from tests.helm.charts import CHARTS, documents, render

Object = dict[str, Any]

VLLM = {
    "metadata": {"labels": {}},
    "spec": {"containers": [{"name": "vllm", "image": "vllm", "env": [], "volumeMounts": []}]},
}
SAME = {
    "defaults": ({}, Injection(image="localhost/joulescope:0.1.0")),
    "claim": (
        {"gpuAccess": "dra", "claim": "gpu"},
        Injection(image="localhost/joulescope:0.1.0", gpu_access="dra", claim="gpu"),
    ),
    "all GPUs": (
        {"gpuAccess": "runtimeclass", "image": {"pullPolicy": "Always"}},
        Injection(image="localhost/joulescope:0.1.0", pull_policy="Always", gpu_access="runtimeclass"),
    ),
    "settings": (
        {"env": {"JOULESCOPE_LOG_LEVEL": "debug"}, "image": {"repository": "a/b", "tag": "7"}},
        Injection(image="a/b:7", env={"JOULESCOPE_LOG_LEVEL": "debug"}),
    ),
}


@pytest.fixture
def users(tmp_path: Path) -> Path:
    """The user's chart, with the library where Helm looks for it."""
    folder = tmp_path / "users"
    shutil.copytree(Path(__file__).with_name("users_chart"), folder)
    (folder / "charts").mkdir()
    shutil.copytree(CHARTS / "joulescope-sidecar", folder / "charts" / "joulescope-sidecar")
    return folder


def _plain(container: dict[str, Any]) -> dict[str, Any]:
    """Variables by name: their order says nothing."""
    return {**container, "env": {each["name"]: each for each in container.get("env", ())}}


@pytest.mark.parametrize("case", SAME)
def test_part_by_part_it_is_what_inject_adds(case: str, users: Path) -> None:
    """Structure for structure, by the includes of single parts."""
    values, injection = SAME[case]
    (rendered,) = documents(render({"joulescope": values}, users))
    template = rendered["spec"]["template"]
    holder: Object = copy.deepcopy(VLLM)
    inject(PodTemplate("Deployment/a", holder, holder["spec"]), injection)
    wanted = holder["spec"]
    assert template["metadata"]["labels"] == holder["metadata"]["labels"]
    assert template["metadata"]["annotations"] == holder["metadata"]["annotations"]
    found = template["spec"]
    assert [_plain(each) for each in found["initContainers"]] == [
        _plain(each) for each in wanted["initContainers"]
    ]
    assert found["volumes"] == wanted["volumes"]
    assert found["securityContext"] == wanted["securityContext"]
    assert found["containers"] == wanted["containers"]


RICH: Object = {
    "metadata": {"labels": {"app": "vllm"}, "annotations": {"a": "b"}},
    "spec": {
        "securityContext": {"runAsUser": 1000740000, "supplementalGroups": [7]},
        "initContainers": [{"name": "first", "image": "a"}],
        "containers": [
            {"name": "proxy", "image": "b"},
            {
                "name": "vllm",
                "image": "vllm",
                "ports": [{"containerPort": 8000}],
                "env": [
                    {"name": "PYTHONPATH", "value": "/a:/b"},
                    {"name": "VLLM_PLUGINS", "value": "x"},
                    {"name": "ANY", "value": "8000"},
                ],
                "volumeMounts": [{"name": "models", "mountPath": "/models"}],
            },
        ],
        "volumes": [{"name": "models", "emptyDir": {}}],
    },
}


def _whole(pod: Object, values: Object, users: Path) -> Object:
    found: Object
    (found,) = (
        each["spec"]["template"]
        for each in documents(render({"joulescope": values, "pod": pod}, users))
        if each["kind"] == "StatefulSet"
    )
    return found


ON_THE_NODES_NETWORK: Object = {**VLLM, "spec": {**VLLM["spec"], "hostNetwork": True}}


@pytest.mark.parametrize("case", [name for name, (values, _) in SAME.items() if name != "all GPUs"])
@pytest.mark.parametrize("pod", [VLLM, RICH, ON_THE_NODES_NETWORK], ids=["plain", "rich", "host"])
def test_as_a_whole_it_is_what_inject_makes(pod: Object, case: str, users: Path) -> None:
    """One include for the whole template, of a pod that has something at each place."""
    values, injection = SAME[case]
    wanted: Object = copy.deepcopy(pod)
    inject(PodTemplate("StatefulSet/a", wanted, wanted["spec"]), injection)
    found = _whole(pod, values, users)
    for template in (found, wanted):
        for part in ("initContainers", "containers"):
            template["spec"][part] = [_plain(each) for each in template["spec"][part]]
    assert found == wanted


def _rename(pod: Object) -> None:
    pod["spec"]["containers"][1]["name"] = "engine"


def _from_elsewhere(pod: Object) -> None:
    pod["spec"]["containers"][1]["env"][0] = {
        "name": "PYTHONPATH",
        "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}},
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [(_rename, "no container vllm; it has proxy, engine"), (_from_elsewhere, "PYTHONPATH of container vllm")],
)
def test_what_cannot_be_done_is_said(change: Callable[[Object], None], said: str, users: Path) -> None:
    """By the template, with the name of what is wrong."""
    pod = copy.deepcopy(RICH)
    change(pod)
    with pytest.raises(helm_python.HelmError, match=said):
        _whole(pod, {}, users)
