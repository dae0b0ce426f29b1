"""joulescope put into pod templates, and taken out."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulescope.errors import ConfigError
from joulescope.inject.engine import NoEngine, find_engine
from joulescope.inject.kinds import PodTemplate
from joulescope.inject.patch import inject, is_guaranteed, remove
from joulescope.inject.pod import GROUP, PORT, SIDECAR, Injection, Resources

VLLM: dict[str, Any] = {"name": "server", "image": "vllm/vllm-openai", "command": ["vllm", "serve", "model"]}


def template(**spec: Any) -> PodTemplate:
    holder: dict[str, Any] = {"metadata": {}, "spec": {"containers": [copy.deepcopy(VLLM)], **spec}}
    return PodTemplate("Deployment/a", holder, holder["spec"])


def engine(of: PodTemplate) -> dict[str, Any]:
    found: dict[str, Any] = of.spec["containers"][0]
    return found


def env(container: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value") for each in container.get("env", ())}


def sidecar(of: PodTemplate) -> dict[str, Any]:
    (found,) = (each for each in of.spec["initContainers"] if each["name"] == SIDECAR)
    return dict(found)


def test_a_path_that_is_there_stays_behind_ours() -> None:
    """Python looks at ours first, and at the user's as before; plugins that are named are joined."""
    pod = template()
    engine(pod)["env"] = [{"name": "PYTHONPATH", "value": "/a:/b"}, {"name": "VLLM_PLUGINS", "value": "lora"}]
    inject(pod, Injection())
    assert env(engine(pod))["PYTHONPATH"] == "/opt/joulescope/hook:/a:/b"
    assert env(engine(pod))["VLLM_PLUGINS"] == "lora,joulescope"
    remove(pod)
    assert env(engine(pod)) == {"PYTHONPATH": "/a:/b", "VLLM_PLUGINS": "lora"}


def test_the_sidecar_starts_before_other_init_containers() -> None:
    """One of theirs that waits for long, for a model for instance, is not before it."""
    pod = template(initContainers=[{"name": "download"}])
    inject(pod, Injection())
    assert [each["name"] for each in pod.spec["initContainers"]] == [
        "joulescope-hook",
        "joulescope",
        "download",
    ]


def test_a_group_is_added_to_those_that_are_there() -> None:
    """No fsGroup is set: that would change the owner of every file of the user's volumes."""
    pod = template(securityContext={"supplementalGroups": [7], "runAsUser": 5})
    inject(pod, Injection())
    assert pod.spec["securityContext"] == {"supplementalGroups": [7, GROUP], "runAsUser": 5}


@pytest.mark.parametrize(
    ("requests", "guaranteed"),
    [({}, True), ({"cpu": "1", "memory": "1Gi"}, True), ({"cpu": "500m", "memory": "1Gi"}, False)],
)
def test_a_guaranteed_pod_stays_so(requests: dict[str, str], guaranteed: bool) -> None:
    """Our requests are our limits then; else small requests leave the node its room."""
    pod = template()
    engine(pod)["resources"] = {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": requests}
    inject(pod, Injection())
    ours = sidecar(pod)["resources"]
    assert (ours["requests"] == ours["limits"]) is guaranteed
    assert is_guaranteed(pod.spec) is guaranteed


def test_other_choices_take_the_place_of_those_before() -> None:
    """An injection is brought up to date, not doubled."""
    pod = template()
    inject(pod, Injection("old:1", env={"JOULESCOPE_LOG_LEVEL": "debug"}))
    inject(pod, Injection("new:2", resources=Resources(memory_limit="1Gi")))
    assert sidecar(pod)["image"] == "new:2"
    assert sidecar(pod)["resources"]["limits"]["memory"] == "1Gi"
    assert "JOULESCOPE_LOG_LEVEL" not in env(sidecar(pod))
    assert len(pod.spec["volumes"]) == 3


def test_a_claim_is_shared_with_the_sidecar() -> None:
    """The very devices of vLLM, read by NVML."""
    pod = template(resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "one"}])
    inject(pod, Injection(gpu_access="dra", claim="gpu"))
    assert sidecar(pod)["resources"]["claims"] == [{"name": "gpu"}]
    assert env(sidecar(pod))["JOULESCOPE_SENSOR"] == "nvml"


def test_a_runtime_class_shows_all_gpus_of_the_node() -> None:
    """One that the pod has stays."""
    pod = template()
    inject(pod, Injection(gpu_access="runtimeclass"))
    assert pod.spec["runtimeClassName"] == "nvidia"
    assert env(sidecar(pod))["NVIDIA_VISIBLE_DEVICES"] == "all"
    own = template(runtimeClassName="nvidia-cdi")
    inject(own, Injection(gpu_access="runtimeclass"))
    assert own.spec["runtimeClassName"] == "nvidia-cdi"


OBSTACLES = {
    r"takes PYTHONPATH from elsewhere": lambda pod: engine(pod).update(
        env=[{"name": "PYTHONPATH", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]
    ),
    r"has port 5685": lambda pod: engine(pod).update(ports=[{"containerPort": PORT}]),
    r"joulescope-run is there already": lambda pod: pod.spec.update(volumes=[{"name": "joulescope-run"}]),
    r"joulescope is there already": lambda pod: pod.spec["containers"].append({"name": "joulescope"}),
}


@pytest.mark.parametrize("said", OBSTACLES)
def test_what_is_in_the_way_is_named_and_nothing_changed(said: str) -> None:
    """With what to do about it."""
    pod = template()
    OBSTACLES[said](pod)
    before = copy.deepcopy(pod.holder)
    with pytest.raises(ConfigError, match=said):
        inject(pod, Injection())
    assert pod.holder == before


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ({"image": " "}, "image is needed"),
        ({"gpu_access": "dra"}, "needs --claim"),
        ({"claim": "gpu"}, "for --gpu-access dra only"),
        ({"env": {"JOULESCOPE_SOCKET": "/a"}}, "may not set JOULESCOPE_SOCKET"),
    ],
)
def test_choices_that_contradict_each_other(choices: dict[str, Any], said: str) -> None:
    """Are refused before anything is read."""
    with pytest.raises(ConfigError, match=said):
        Injection(**choices)


CONTAINERS = {
    "by command": [{"name": "a", "command": ["vllm", "serve"]}, {"name": "b", "image": "vllm/router"}],
    "by shell": [{"name": "a", "args": ["-c", "exec vllm serve x --port 8"]}, {"name": "b"}],
    "by module": [
        {"name": "a", "command": ["python3", "-m", "vllm.entrypoints.openai.api_server"]},
        {"name": "b"},
    ],
    "by image": [{"name": "a", "image": "vllm/vllm-openai:v1"}, {"name": "b", "image": "vllm-router:1"}],
    "by name": [{"name": "vllm"}, {"name": "b", "image": "nginx"}],
}


@pytest.mark.parametrize("how", CONTAINERS)
def test_vllm_is_found(how: str) -> None:
    """By the surest mark first."""
    assert find_engine(CONTAINERS[how]) == 0


def test_vllm_is_not_guessed_among_several() -> None:
    """A name decides, and a name that is not there is said."""
    two = [{"name": "a", "command": ["vllm", "serve"]}, {"name": "b", "command": ["vllm", "serve"]}]
    with pytest.raises(
        ConfigError, match="several containers that may be vLLM: a, b; choose with --container"
    ):
        find_engine(two)
    assert find_engine(two, "b") == 1
    with pytest.raises(NoEngine, match="has no container c; it has a, b"):
        find_engine(two, "c")
    with pytest.raises(NoEngine, match="no container that is vLLM"):
        find_engine([{"name": "web", "image": "nginx"}])


_names = st.text("abc-", min_size=1, max_size=6)
_variables = st.lists(
    st.builds(
        lambda name, value: {"name": name, "value": value},
        st.sampled_from(["A", "PYTHONPATH", "VLLM_PLUGINS"]),
        st.sampled_from(["", "x", "/a:/b", "lora,other"]),
    ),
    max_size=3,
    unique_by=lambda each: each["name"],
).filter(lambda variables: {"name": "PYTHONPATH", "value": ""} not in variables)  # the same as none
_specs = st.fixed_dictionaries(
    {},
    optional={
        "initContainers": st.lists(st.builds(lambda name: {"name": name}, _names), min_size=1, max_size=3),
        "volumes": st.lists(
            st.builds(lambda name: {"name": name, "emptyDir": {}}, _names), min_size=1, max_size=3
        ),
        "securityContext": st.fixed_dictionaries(
            {"runAsUser": st.integers(1, 9)},
            optional={"supplementalGroups": st.lists(st.integers(1, 9), min_size=1)},
        ),
    },
)


@given(_specs, _variables)
def test_in_and_out_is_as_before_and_twice_is_as_once(
    spec: dict[str, Any], variables: list[dict[str, Any]]
) -> None:
    """For pods of every shape: nothing of the user's is lost, moved or doubled."""
    pod = template(**copy.deepcopy(spec))
    if variables:
        engine(pod)["env"] = copy.deepcopy(variables)
    before = copy.deepcopy(pod.spec)
    inject(pod, Injection())
    once = copy.deepcopy(pod.holder)
    inject(pod, Injection())
    assert pod.holder == once
    remove(pod)
    assert pod.spec == before


def test_amounts_are_compared_as_amounts() -> None:
    """A Guaranteed pod that is taken for a lesser one would lose its class, and vLLM its exclusive cores."""
    resources = {
        "limits": {"cpu": 4, "memory": "1Gi"},
        "requests": {"cpu": "4000m", "memory": "1024Mi"},
    }
    assert is_guaranteed({"containers": [{"name": "a", "resources": resources}]})
    resources["requests"]["memory"] = "1G"
    assert not is_guaranteed({"containers": [{"name": "a", "resources": resources}]})


def test_of_variables_that_are_there_twice_the_last_is_joined() -> None:
    """It is the one that the container has."""
    pod = template()
    engine(pod)["env"] = [{"name": "PYTHONPATH", "value": "/a"}, {"name": "PYTHONPATH", "value": "/b"}]
    inject(pod, Injection())
    assert env(engine(pod))["PYTHONPATH"] == "/opt/joulescope/hook:/b"
    remove(pod)
    assert [each["value"] for each in engine(pod)["env"]] == ["/a", "/b"]


def test_a_group_of_the_users_own_with_our_number_stays() -> None:
    """Taken out is ours alone."""
    pod = template(securityContext={"supplementalGroups": [GROUP]})
    inject(pod, Injection())
    inject(pod, Injection())
    remove(pod)
    assert pod.spec["securityContext"] == {"supplementalGroups": [GROUP]}


def test_on_the_network_of_the_node_no_port_is_declared() -> None:
    """It would be one of the node's, and the scheduler finds no room for a second such pod there."""
    pod = template(hostNetwork=True)
    inject(pod, Injection())
    assert "ports" not in sidecar(pod)
