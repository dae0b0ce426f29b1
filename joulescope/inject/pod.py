"""What joulescope is in a pod, as data: containers, volumes, variables, a group.

The Helm library chart and the Kustomize component say the same; tests hold them to this module.
docs/kubernetes.md says why each part is as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from joulescope import __version__
from joulescope.errors import ConfigError
from joulescope.hook.environment import DEFAULT_SOCKET

Object = dict[str, Any]
GpuAccess = Literal["engine", "dra", "runtimeclass"]
Role = Literal["alone", "head", "worker"]
"""Of a pod: an engine alone, or the head or another node of an engine over several."""

SIDECAR = "joulescope"
INSTALLER = "joulescope-hook"
RUN_VOLUME, RUN_FOLDER = "joulescope-run", "/run/joulescope"
HOOK_VOLUME, HOOK_FOLDER = "joulescope-hook", "/opt/joulescope/hook"
NO_TOKEN_VOLUME, TOKEN_FOLDER = "joulescope-no-token", "/var/run/secrets/kubernetes.io/serviceaccount"
LINK_VOLUME, LINK_FOLDER = "joulescope-link", "/etc/joulescope/link"
PORT_NAME, PORT = "joulescope", 5685
LINK_PORT_NAME, LINK_PORT = "joulescope-link", 5686
USER = GROUP = 10001
"""Of the image. The group is what lets vLLM's user open the sidecar's socket."""

SCRAPE_LABEL = "joulescope/scrape"
VERSION_ANNOTATION = "joulescope/injected"
SOCKET_VARIABLE, PATH_VARIABLE, PLUGINS_VARIABLE = "JOULESCOPE_SOCKET", "PYTHONPATH", "VLLM_PLUGINS"
PLUGIN = "joulescope"
DEFAULT_IMAGE = f"localhost/joulescope:{__version__}"

_IDENTITY = {
    "POD_NAME": "metadata.name",
    "POD_NAMESPACE": "metadata.namespace",
    "POD_UID": "metadata.uid",
    "NODE_NAME": "spec.nodeName",
}
_OURS = frozenset(
    {*_IDENTITY, "CONTAINER_NAME", "JOULESCOPE_SENSOR", "JOULESCOPE_SOCKET", "JOULESCOPE_LISTEN"}
)


@dataclass(frozen=True)
class Resources:
    """What the sidecar asks for and may use, as Kubernetes writes quantities.

    docs/operations.md has the sizing.
    """

    cpu_request: str = "100m"
    memory_request: str = "192Mi"
    cpu_limit: str = "1"
    memory_limit: str = "512Mi"
    guaranteed_cpu: str = "500m"
    """In a Guaranteed pod, where a whole number would take a core for itself from the static CPU manager."""

    def of_container(self, guaranteed: bool) -> Object:
        """``guaranteed``: the pod's other containers have limits equal to requests, and it is to stay so."""
        if guaranteed:
            both = {"cpu": self.guaranteed_cpu, "memory": self.memory_limit}
            return {"requests": both, "limits": dict(both)}
        return {
            "requests": {"cpu": self.cpu_request, "memory": self.memory_request},
            "limits": {"cpu": self.cpu_limit, "memory": self.memory_limit},
        }


@dataclass(frozen=True)
class Injection:
    """What is chosen of it.

    Args:
        image: of the sidecar; the init container that brings the hook has the same.
        gpu_access: who reads the GPUs: vLLM's container, or the sidecar by a shared claim or a runtime class.
        claim: the name of the pod's ``resourceClaims`` entry that has vLLM's GPUs, for ``dra``.
        env: more variables of the sidecar: settings, ``OTEL_…``.
        link_secret: of the certificates between nodes of an engine (``tls.crt``, ``tls.key``, ``ca.crt``);
            without one other nodes have no joulescope.
        link_server_name: the name in them, where it is not the head's address.
        link_connect: where the head is for the others, where the kind of the manifest does not tell.

    Raises:
        ConfigError: if parts contradict each other.
    """

    image: str = DEFAULT_IMAGE
    pull_policy: str = ""
    gpu_access: GpuAccess = "engine"
    claim: str = ""
    resources: Resources = field(default_factory=Resources)
    env: Mapping[str, str] = field(default_factory=dict)
    link_secret: str = ""
    link_server_name: str = ""
    link_connect: str = ""

    def __post_init__(self) -> None:
        if not self.image.strip():
            raise ConfigError("an image is needed: name one with --image")
        if bool(self.claim) != (self.gpu_access == "dra"):
            raise ConfigError(
                "--gpu-access dra needs --claim, the name of the pod's resource claim that has the GPUs"
                if self.gpu_access == "dra"
                else "--claim is for --gpu-access dra only"
            )
        taken = sorted(_OURS.intersection(self.env) - {"JOULESCOPE_SENSOR"})
        if taken:
            raise ConfigError(f"--env may not set {', '.join(taken)}: the rest of the pod depends on it")

    def init_containers(
        self, guaranteed: bool = False, role: Role = "alone", head_address: str = ""
    ) -> list[Object]:
        """The one that brings the hook, and the sidecar, in the order in which they start.

        ``head_address`` is the head's for a worker, as a text in which Kubernetes replaces variables.
        """
        return [self._installer(guaranteed), self._sidecar(guaranteed, role, head_address)]

    def volumes(self, role: Role = "alone") -> list[Object]:
        """Without a limit of size: a pod whose volume outgrows its limit is evicted."""
        own = [{"name": name, "emptyDir": {}} for name in (RUN_VOLUME, HOOK_VOLUME, NO_TOKEN_VOLUME)]
        if not self._links(role):
            return own
        # Optional: a pod whose secret is not there would not start, a sidecar without it only waits.
        return [*own, {"name": LINK_VOLUME, "secret": {"secretName": self.link_secret, "optional": True}}]

    def _installer(self, guaranteed: bool) -> Object:
        return {
            "name": INSTALLER,
            **self._image(),
            "args": ["hook", "install", HOOK_FOLDER, "--lenient"],
            "resources": self.resources.of_container(guaranteed),
            "securityContext": security_context(),
            "volumeMounts": [mount(HOOK_VOLUME, HOOK_FOLDER), _no_token()],
        }

    def _links(self, role: Role) -> bool:
        return role != "alone" and bool(self.link_secret)

    def _sidecar(self, guaranteed: bool, role: Role, head_address: str) -> Object:
        links = self._links(role)
        ports = [_port(PORT_NAME, PORT)]
        mounts = [mount(RUN_VOLUME, RUN_FOLDER), _no_token()]
        if links and role == "head":
            ports.append(_port(LINK_PORT_NAME, LINK_PORT))
        if links:
            mounts.append(mount(LINK_VOLUME, LINK_FOLDER, read_only=True))
        resources = self.resources.of_container(guaranteed)
        if self.claim:
            resources["claims"] = [{"name": self.claim}]
        return {
            "name": SIDECAR,
            **self._image(),
            "restartPolicy": "Always",
            "args": ["relay" if role == "worker" else "serve", "--stay"],
            "env": self._environment(self._link_settings(role, head_address) if links else {}),
            "ports": ports,
            "resources": resources,
            "securityContext": security_context(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": mounts,
        }

    def _image(self) -> Object:
        return {
            "image": self.image,
            **({"imagePullPolicy": self.pull_policy} if self.pull_policy else {}),
        }

    def _link_settings(self, role: Role, head_address: str) -> Mapping[str, str]:
        files = {
            "JOULESCOPE_LINK_CERT_FILE": f"{LINK_FOLDER}/tls.crt",
            "JOULESCOPE_LINK_KEY_FILE": f"{LINK_FOLDER}/tls.key",
            "JOULESCOPE_LINK_CA_FILE": f"{LINK_FOLDER}/ca.crt",
        }
        if role == "head":
            return {"JOULESCOPE_LINK_LISTEN": f"0.0.0.0:{LINK_PORT}", **files}
        head = self.link_connect or f"{head_address}:{LINK_PORT}"
        name = {"JOULESCOPE_LINK_SERVER_NAME": self.link_server_name} if self.link_server_name else {}
        return {"JOULESCOPE_LINK_CONNECT": head, **files, **name}

    def _environment(self, link: Mapping[str, str]) -> list[Object]:
        sensor = "engine" if self.gpu_access == "engine" else "nvml"
        settings = {
            "CONTAINER_NAME": SIDECAR,
            "JOULESCOPE_SOCKET": DEFAULT_SOCKET,
            "JOULESCOPE_LISTEN": f"0.0.0.0:{PORT}",
            "JOULESCOPE_SENSOR": sensor,
            **({"NVIDIA_VISIBLE_DEVICES": "all"} if self.gpu_access == "runtimeclass" else {}),
            **link,
            **self.env,
        }
        return [
            *(
                {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
                for name, path in _IDENTITY.items()
            ),
            *({"name": name, "value": value} for name, value in settings.items()),
        ]


def engine_mounts() -> list[Object]:
    """vLLM's: a socket is connected to on a read-only mount too."""
    return [mount(RUN_VOLUME, RUN_FOLDER, read_only=True), mount(HOOK_VOLUME, HOOK_FOLDER, read_only=True)]


def security_context() -> Object:
    """What Pod Security "restricted" asks of a container, and a read-only root."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsGroup": GROUP,
        "runAsNonRoot": True,
        "runAsUser": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def mount(volume: str, folder: str, read_only: bool = False) -> Object:
    return {"name": volume, "mountPath": folder, **({"readOnly": True} if read_only else {})}


def _port(name: str, number: int) -> Object:
    return {"name": name, "containerPort": number, "protocol": "TCP"}


def _no_token() -> Object:
    """A container that has something mounted there gets no service-account token, whatever the pod gets."""
    return mount(NO_TOKEN_VOLUME, TOKEN_FOLDER, read_only=True)
