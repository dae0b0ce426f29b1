"""Engines over several nodes: the head listens, the others relay."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from joulescope.config.load import load
from joulescope.errors import ConfigError
from joulescope.inject.documents import inject_text, remove_text
from joulescope.inject.pod import SIDECAR, Injection
from tests.inject.test_examples import EXAMPLES, pod_templates
from tests.kubernetes import VERSIONS, pod_errors

(EXAMPLE,) = (each for each in EXAMPLES if each.stem == "leaderworkerset")
LINKED = Injection(link_secret="links", link_server_name="head.joulescope.internal")
RAY = """\
apiVersion: ray.io/v1
kind: RayCluster
metadata: {name: ray}
spec:
  headGroupSpec:
    template:
      spec:
        containers: [{name: ray-head, image: vllm/vllm-openai, args: [vllm serve m]}]
  workerGroupSpecs:
  - groupName: gpu
    template:
      spec:
        containers: [{name: ray-worker, image: vllm/vllm-openai}]
"""
KSERVE = """\
apiVersion: serving.kserve.io/v1alpha1
kind: LLMInferenceService
metadata: {name: a}
spec:
  template:
    containers: [{name: main}]
  worker:
    containers: [{name: main}]
"""


def _sidecars(text: str) -> list[dict[str, Any]]:
    return [
        dict(each)
        for template in pod_templates(text)
        for each in template.spec.get("initContainers", ())
        if each["name"] == SIDECAR
    ]


def _settings(sidecar: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in sidecar["env"] if "value" in each}


def test_the_leader_serves_and_listens_and_workers_relay() -> None:
    """By the address that LeaderWorkerSet gives to every container of a group."""
    result = inject_text(EXAMPLE.read_text(), LINKED)
    assert len(result.changed) == 2
    head, worker = _sidecars(result.text)
    assert (head["args"][0], worker["args"][0]) == ("serve", "relay")
    assert _settings(head)["JOULESCOPE_LINK_LISTEN"] == "0.0.0.0:5686"
    assert _settings(worker)["JOULESCOPE_LINK_CONNECT"] == "$(LWS_LEADER_ADDRESS):5686"
    assert _settings(worker)["JOULESCOPE_LINK_SERVER_NAME"] == "head.joulescope.internal"
    assert [port["containerPort"] for port in head["ports"]] == [5685, 5686]


def test_the_settings_are_ones_that_joulescope_has() -> None:
    """Both sides of a link can be built from them, once Kubernetes has put the address in."""
    for sidecar in _sidecars(inject_text(EXAMPLE.read_text(), LINKED).text):
        environ = {
            name: value.replace("$(LWS_LEADER_ADDRESS)", "vllm-0.vllm.default")
            for name, value in _settings(sidecar).items()
            if name.startswith("JOULESCOPE_")
        }
        settings, _ = load({}, environ)
        assert settings.link_cert_file == "/etc/joulescope/link/tls.crt"


def test_twice_is_as_once_and_out_is_as_before() -> None:
    """With links too, and from one without links to one with them."""
    once = inject_text(EXAMPLE.read_text(), LINKED).text
    assert inject_text(once, LINKED).text == once
    assert inject_text(inject_text(EXAMPLE.read_text(), Injection()).text, LINKED).text == once
    back = yaml.safe_load(remove_text(once).text)
    assert back == yaml.safe_load(EXAMPLE.read_text())


@pytest.mark.parametrize("version", VERSIONS)
def test_schemas_of_kubernetes_have_nothing_against_it(version: str) -> None:
    """Of leader and worker."""
    for template in pod_templates(inject_text(EXAMPLE.read_text(), LINKED).text):
        assert pod_errors(template.spec, version) == []


def test_an_llm_inference_service_is_a_leader_worker_set() -> None:
    """KServe makes one of it."""
    head, worker = _sidecars(inject_text(KSERVE, LINKED).text)
    assert (head["args"][0], worker["args"][0]) == ("serve", "relay")


def test_where_nothing_tells_the_head_it_has_to_be_named() -> None:
    """Ray knows it, and tells vLLM's container alone."""
    said = inject_text(RAY, LINKED)
    assert said.changed == ["RayCluster/ray headGroupSpec"]
    assert "--link-connect" in said.notes[0]
    named = Injection(link_secret="links", link_connect="ray-head-svc:5686")
    _, worker = _sidecars(inject_text(RAY, named).text)
    assert _settings(worker)["JOULESCOPE_LINK_CONNECT"] == "ray-head-svc:5686"


def test_an_engine_on_one_node_does_not_listen() -> None:
    """Whatever is chosen for links."""
    alone = next(each for each in EXAMPLES if each.stem == "deployment")
    assert inject_text(alone.read_text(), LINKED).text == inject_text(alone.read_text(), Injection()).text


def test_without_the_secret_a_relay_of_an_earlier_run_goes() -> None:
    """Its head does not listen any more; labels that the two share stay with the head."""
    both = inject_text(KSERVE, Injection(link_secret="link", image="old:1")).text
    again = inject_text(both, Injection(image="new:1")).text
    assert "old:1" not in again
    assert yaml.safe_load(again) == yaml.safe_load(inject_text(KSERVE, Injection(image="new:1")).text)


def test_a_worker_with_a_joulescope_of_its_own_is_refused_though_it_shares_labels() -> None:
    """The head's annotation does not make it ours."""
    text = f"{KSERVE}    initContainers: [{{name: joulescope, image: mine}}]\n"
    with pytest.raises(ConfigError, match="joulescope is there already"):
        inject_text(text, Injection(link_secret="link"))
