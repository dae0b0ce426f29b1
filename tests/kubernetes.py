"""What a cluster would say of a manifest: its schema, and Pod Security.

Pod Security's profiles are code in the API server. The rules here are those for "baseline" and "restricted"
of https://kubernetes.io/docs/concepts/security/pod-security-standards/, on Linux.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import kubernetes_validate

VERSIONS = tuple(f"1.{minor}" for minor in range(29, 38))

Object = Mapping[str, Any]

_VOLUMES = frozenset(
    {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
)
_SYSCTLS = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
    }
)
_SELINUX_TYPES = frozenset({"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"})
_PROFILES = frozenset({"RuntimeDefault", "Localhost"})


def schema_errors(document: Object, version: str) -> list[str]:
    """What the strict schema of a version of Kubernetes (``1.29`` to ``1.37``) has against a document.

    Raises:
        kubernetes_validate.SchemaNotFoundError: for kinds that Kubernetes does not know itself.
    """
    try:
        kubernetes_validate.validate(dict(document), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def pod_errors(spec: Object, version: str) -> list[str]:
    """The same of a pod spec that stands in a kind of which there is no schema."""
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
    return schema_errors(pod, version)


def restricted_errors(template: Object) -> list[str]:
    """What Pod Security "restricted" has against a pod template; empty if it would be admitted."""
    spec = template["spec"]
    errors = [*_of_pod(spec), *_of_volumes(spec)]
    for annotation, value in ((template.get("metadata") or {}).get("annotations") or {}).items():
        confines = value == "runtime/default" or value.startswith("localhost/")
        if annotation.startswith("container.apparmor.security.beta.kubernetes.io/") and not confines:
            errors.append(f"annotation {annotation} is {value}")
    for container in containers_of(spec):
        name = container["name"]
        errors += [f"container {name}: {each}" for each in _of_container(container, spec)]
    return errors


def containers_of(spec: Object) -> Iterator[Object]:
    """All containers of a pod, of every sort."""
    for part in ("initContainers", "containers", "ephemeralContainers"):
        yield from spec.get(part) or ()


def _of_pod(spec: Object) -> Iterator[str]:
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield f"{field} is set"
    security = spec.get("securityContext") or {}
    for sysctl in security.get("sysctls") or ():
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']}"
    yield from _of_shared(security)


def _of_volumes(spec: Object) -> Iterator[str]:
    for volume in spec.get("volumes") or ():
        kinds = set(volume) - {"name"}
        if not kinds <= _VOLUMES:
            yield f"volume {volume['name']} is of kind {', '.join(sorted(kinds - _VOLUMES))}"


def _of_shared(security: Object) -> Iterator[str]:
    """Fields that pod and container both have."""
    if (security.get("windowsOptions") or {}).get("hostProcess"):
        yield "is a host process"
    options = security.get("seLinuxOptions") or {}
    if options.get("type", "") not in _SELINUX_TYPES or options.get("user") or options.get("role"):
        yield "seLinuxOptions are not allowed"
    profile = (security.get("seccompProfile") or {}).get("type")
    if profile is not None and profile not in _PROFILES:
        yield f"seccomp profile is {profile}"
    armor = (security.get("appArmorProfile") or {}).get("type")
    if armor is not None and armor not in _PROFILES:
        yield f"AppArmor profile is {armor}"
    if security.get("runAsUser") == 0:
        yield "runs as user 0"
    if security.get("runAsNonRoot") is False:
        yield "runAsNonRoot is false"


def _of_container(container: Object, spec: Object) -> Iterator[str]:
    security = container.get("securityContext") or {}
    pod = spec.get("securityContext") or {}
    yield from _of_shared(security)
    if security.get("privileged"):
        yield "is privileged"
    if security.get("allowPrivilegeEscalation") is not False:
        yield "allowPrivilegeEscalation is not false"
    capabilities = security.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield "does not drop ALL capabilities"
    if set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}:
        yield "adds capabilities"
    if not (security.get("runAsNonRoot") or ("runAsNonRoot" not in security and pod.get("runAsNonRoot"))):
        yield "runAsNonRoot is not true"
    if not (security.get("seccompProfile") or pod.get("seccompProfile")):
        yield "has no seccomp profile"
    if (security.get("procMount") or "Default") != "Default":
        yield "procMount is not Default"
    for port in container.get("ports") or ():
        if port.get("hostPort"):
            yield f"host port {port['hostPort']}"
    for hook in (*_probes(container), *(container.get("lifecycle") or {}).values()):
        if any((hook.get(how) or {}).get("host") for how in ("httpGet", "tcpSocket")):
            yield "a probe or hook names a host"


def _probes(container: Object) -> Iterator[Object]:
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name):
            yield container[name]
