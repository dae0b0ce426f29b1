"""The checks of manifests: each rule can fail."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.kubernetes import VERSIONS, pod_errors, restricted_errors, schema_errors

GOOD: dict[str, Any] = {
    "metadata": {},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "one",
                "image": "image:1",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}


def _container(template: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = template["spec"]["containers"][0]
    return found


def _set(*path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Changes a field of the container's, or with ``spec`` first of the pod's."""

    def change(template: dict[str, Any]) -> None:
        node = template if path[0] in ("spec", "metadata") else _container(template)
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value

    return change


BREACHES = {
    "hostNetwork is set": _set("spec", "hostNetwork", value=True),
    "hostPID is set": _set("spec", "hostPID", value=True),
    "hostIPC is set": _set("spec", "hostIPC", value=True),
    "sysctl kernel.msgmax": _set("spec", "securityContext", "sysctls", value=[{"name": "kernel.msgmax"}]),
    "volume a is of kind hostPath": _set("spec", "volumes", value=[{"name": "a", "hostPath": {"path": "/"}}]),
    "annotation container.apparmor.security.beta.kubernetes.io/one is unconfined": _set(
        "metadata",
        "annotations",
        value={"container.apparmor.security.beta.kubernetes.io/one": "unconfined"},
    ),
    "container one: is a host process": _set(
        "securityContext", "windowsOptions", value={"hostProcess": True}
    ),
    "container one: seLinuxOptions are not allowed": _set(
        "securityContext", "seLinuxOptions", value={"user": "root"}
    ),
    "container one: seccomp profile is Unconfined": _set(
        "securityContext", "seccompProfile", value={"type": "Unconfined"}
    ),
    "container one: AppArmor profile is Unconfined": _set(
        "securityContext", "appArmorProfile", value={"type": "Unconfined"}
    ),
    "container one: runs as user 0": _set("securityContext", "runAsUser", value=0),
    "container one: runAsNonRoot is not true": _set("spec", "securityContext", "runAsNonRoot", value=None),
    "container one: is privileged": _set("securityContext", "privileged", value=True),
    "container one: allowPrivilegeEscalation is not false": _set(
        "securityContext", "allowPrivilegeEscalation", value=None
    ),
    "container one: does not drop ALL capabilities": _set("securityContext", "capabilities", value={}),
    "container one: adds capabilities": _set(
        "securityContext", "capabilities", value={"drop": ["ALL"], "add": ["SYS_ADMIN"]}
    ),
    "container one: has no seccomp profile": _set("spec", "securityContext", "seccompProfile", value=None),
    "container one: procMount is not Default": _set("securityContext", "procMount", value="Unmasked"),
    "container one: host port 80": _set("ports", value=[{"containerPort": 80, "hostPort": 80}]),
    "container one: a probe or hook names a host": _set(
        "livenessProbe", value={"httpGet": {"host": "elsewhere", "port": 80}}
    ),
}


def test_a_restricted_pod_is_admitted() -> None:
    """By its own context, or by the pod's."""
    assert restricted_errors(GOOD) == []


@pytest.mark.parametrize("error", BREACHES)
def test_each_breach_is_found(error: str) -> None:
    """One field is changed, and that is what is said."""
    template = copy.deepcopy(GOOD)
    BREACHES[error](template)
    assert restricted_errors(template) == [error]


@pytest.mark.parametrize("part", ["initContainers", "ephemeralContainers"])
def test_containers_of_every_sort_are_looked_at(part: str) -> None:
    """An init container is as dangerous."""
    template = copy.deepcopy(GOOD)
    template["spec"][part] = [{"name": "other"}]
    assert "container other: does not drop ALL capabilities" in restricted_errors(template)


@pytest.mark.parametrize("version", VERSIONS)
def test_schemas_refuse_what_no_pod_has(version: str) -> None:
    """A field that is misspelt, in every version."""
    assert pod_errors(GOOD["spec"], version) == []
    misspelt = copy.deepcopy(GOOD)
    _container(misspelt)["imagePulPolicy"] = "Always"
    (error,) = pod_errors(misspelt["spec"], version)
    assert "imagePulPolicy" in error
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": "8000"}}
    assert schema_errors(service, version)
