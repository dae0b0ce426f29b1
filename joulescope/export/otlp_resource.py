"""Who sends: the resource of OTLP spans and metrics, found without asking anybody.

In a pod the downward API gives the names as environment variables, and the kernel shows the rest; neither the
API server nor a service account's token is needed. What is not certain is left out: a wrong container id
is worse than none.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from joulescope import __version__

VARIABLES = {
    "k8s.pod.name": ("K8S_POD_NAME", "POD_NAME", "OTEL_RESOURCE_ATTRIBUTES_POD_NAME"),
    "k8s.pod.uid": ("K8S_POD_UID", "POD_UID", "OTEL_RESOURCE_ATTRIBUTES_POD_UID"),
    "k8s.namespace.name": ("K8S_NAMESPACE_NAME", "K8S_NAMESPACE", "POD_NAMESPACE"),
    "k8s.node.name": ("K8S_NODE_NAME", "NODE_NAME", "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME"),
    "k8s.container.name": ("K8S_CONTAINER_NAME", "CONTAINER_NAME"),
}
"""Usual names of the variables that a manifest fills by the downward API; the first that is set counts."""

INSTANCE_NAMESPACE = uuid.UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320")
"""OpenTelemetry's namespace of instance ids that are made from something stable (semantic conventions,
``service.instance.id``)."""

_ID = "[0-9a-f]{64}"
_UID = "[0-9a-f]{8}[-_](?:[0-9a-f]{4}[-_]){3}[0-9a-f]{12}|[0-9a-f]{32}"
_CGROUP_CONTAINER = re.compile(rf"(?:^|[/:-])({_ID})(?:\.scope)?(?=/|$)")
_CGROUP_POD = re.compile(rf"(?:^|[/:-])pod({_UID})(?=[./:]|$)")
_MOUNTED_POD = re.compile(rf"/pods/({_UID})/")
_MOUNTED_LOG = re.compile(rf"/pods/(?:{_UID})/containers/([a-z0-9.-]+)/[0-9a-f]+$")
"""Of the termination log, which the kubelet mounts into each container, at ``/dev/termination-log``."""
_MOUNTED_ENVIRONMENT = re.compile(rf"/overlay-containers/({_ID})/userdata/\.containerenv$")
"""Podman and CRI-O."""
_MOUNTED_FILE = re.compile(rf"/containers/({_ID})/(?:hostname|hosts|resolv\.conf)$")
"""Docker. In a pod these are the sandbox's, whose id is another."""


def create_resource(
    environ: Mapping[str, str] = os.environ, *, instance: str = "", root: Path = Path("/")
) -> Resource:
    """``OTEL_SERVICE_NAME`` and ``OTEL_RESOURCE_ATTRIBUTES`` win over what is found here.

    Args:
        instance: tells this sidecar from others on the same machine; the path of its socket does.
        root: where ``proc`` and ``etc`` are.
    """
    theirs = OTELResourceDetector().detect()
    detected = detect(environ, root)
    found = {**detected, **theirs.attributes}
    hostname = socket.gethostname()
    ours = {
        "service.name": "joulescope",
        "service.version": __version__,
        "service.instance.id": _instance_id(found, hostname, instance, root),
        # In a pod the host's name is the pod's; the machine that hw.* speaks of is the node.
        "host.name": str(found.get("k8s.node.name") or hostname),
        **detected,
    }
    return Resource.create(ours).merge(theirs)


def detect(environ: Mapping[str, str], root: Path = Path("/")) -> dict[str, str]:
    """Pod, node and container as far as they are known, by their names in the semantic conventions."""
    found = {
        name: value
        for name, variables in VARIABLES.items()
        if (value := next(filter(None, (environ.get(each, "").strip() for each in variables)), ""))
    }
    cgroups = [line.split(":", 2)[-1] for line in _lines(root / "proc/self/cgroup")]
    mounts = [fields[3] for line in _lines(root / "proc/self/mountinfo") if len(fields := line.split()) > 3]
    pod = _last(_CGROUP_POD, cgroups) or _last(_MOUNTED_POD, mounts)
    container = _last(_CGROUP_CONTAINER, (path for path in cgroups if "conmon" not in path))
    container = container or _last(_MOUNTED_ENVIRONMENT, mounts)
    if not container and not pod and "KUBERNETES_SERVICE_HOST" not in environ:
        container = _last(_MOUNTED_FILE, mounts)
    seen = {
        "k8s.pod.uid": pod.replace("_", "-"),
        "k8s.container.name": _last(_MOUNTED_LOG, mounts),
        "container.id": container,
    }
    return {**{name: value for name, value in seen.items() if value}, **found}


def _lines(path: Path) -> Iterator[str]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return
    yield from text.splitlines()


def _last(pattern: re.Pattern[str], texts: Iterator[str] | list[str]) -> str:
    """What the pattern finds deepest in the last of the texts that it fits; empty if it fits none."""
    found = [match[1] for text in texts for match in pattern.finditer(text)]
    return found[-1] if found else ""


def _instance_id(found: Mapping[str, object], hostname: str, instance: str, root: Path) -> str:
    """The same after a restart, where something about the place is the same; else made by chance."""
    pod = found.get("k8s.pod.uid") or (
        f"{found['k8s.namespace.name']}/{found['k8s.pod.name']}"
        if {"k8s.namespace.name", "k8s.pod.name"} <= found.keys()
        else None
    )
    parts: tuple[object, ...]
    if pod:
        parts = (pod, found.get("k8s.container.name", ""), instance)
    elif container := found.get("container.id"):
        parts = (container, instance)
    elif machine := "".join(_lines(root / "etc/machine-id")).strip():
        parts = (machine, hostname, instance)  # images may share one machine id, not the host's name
    else:
        return str(uuid.uuid4())
    return str(uuid.uuid5(INSTANCE_NAMESPACE, "\n".join(map(str, parts))))
