"""A plain Deployment of vLLM as a user has it, and an injected one as ``podman play kube`` can play it."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.real.podman import PLAIN_IMAGE
from tests.real.vllm_env import vllm_python

Object = dict[str, Any]
VLLM_USER = 10002
VLLM_PORT = 8000

LEFT_OUT = {
    "initContainers[].restartPolicy": "podman 4.3 knows no native sidecar: it becomes a container that is"
    " started first, in the order in which the manifest has them",
    "valueFrom.fieldRef": "podman 4.3 refuses spec.nodeName and metadata.namespace: they get a value",
    "volumes[].emptyDir": "podman gives the folder to the user of the container that it starts first; the"
    " kubelet lets all users write it (0777), and so does the folder that takes its place",
    "ports": "podman asks for a bridge of its own for them; the pod has an address here instead",
    "restartPolicy": "Never: what the kubelet does by itself, the tests do, to see the pod in between",
    "kind": "the pod template of the Deployment becomes a Pod, with a name and a grace period of a second",
}
"""What of the rendered manifest is not played as it is written, and why. All else is."""


def deployment(model: Path, driver: Path) -> Object:
    """vLLM on the CPU, hardened, with nothing of joulescope but the switch that a CPU needs.

    Args:
        model: folder of the model.
        driver: folder with ``libnvidia-ml.so.1`` and ``state``, which the stand-in driver maps to write.
    """
    prefix, base = _prefixes()
    folders = {"environment": prefix, "model": str(model), "driver": str(driver)}
    if not base.startswith("/usr"):  # else it is the image's own
        folders["python"] = base
    variables = {
        "HOME": "/tmp",
        "USER": "vllm",  # no user of the image has this number, and torch asks for a name
        "HF_HUB_OFFLINE": "1",
        "VLLM_HOST_IP": "127.0.0.1",  # the pod has no way out by which it could find its own
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "LD_LIBRARY_PATH": str(driver),
        # The sampler is started with a clean environment, of which NVIDIA_… is a part.
        "NVIDIA_FAKE_NVML_STATE": f"{driver}/state",
        "JOULESCOPE_SAMPLER": "on",  # "auto" is for NVIDIA GPUs, and vLLM sees none
    }
    server = [
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(model),
        "--served-model-name",
        "tiny",
    ]
    server += ["--max-model-len", "2048", "--enforce-eager", "--host", "0.0.0.0", "--port", str(VLLM_PORT)]
    mounts = [
        {"name": name, "mountPath": path, "readOnly": name != "driver"} for name, path in folders.items()
    ]
    container = {
        "name": "vllm",
        "image": PLAIN_IMAGE,
        "command": [str(vllm_python()), *server],
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "ports": [{"name": "http", "containerPort": VLLM_PORT}],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsGroup": VLLM_USER,
            "runAsNonRoot": True,
            "runAsUser": VLLM_USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [
            *mounts,
            {"name": "scratch", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},  # vLLM wants 160 MiB, more than a container has
        ],
    }
    volumes: list[Object] = [{"name": name, "hostPath": {"path": path}} for name, path in folders.items()]
    volumes += [{"name": "scratch", "emptyDir": {}}, {"name": "shm", "emptyDir": {"medium": "Memory"}}]
    labels = {"app": "vllm"}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "volumes": volumes},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "vllm", "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }


def playable(template: Mapping[str, Any], name: str, folder: Path) -> Object:
    """The Pod that podman plays for a rendered pod template: see :data:`LEFT_OUT`.

    Args:
        folder: takes a folder for each empty volume.
    """
    spec = copy.deepcopy(dict(template["spec"]))
    first = spec.pop("initContainers", [])
    sidecars = [container for container in first if container.pop("restartPolicy", "") == "Always"]
    spec["initContainers"] = [container for container in first if container not in sidecars]
    spec["containers"] = [*sidecars, *spec["containers"]]
    for container in spec["containers"]:
        container.pop("ports", None)
        for variable in container.get("env", []):
            if source := variable.pop("valueFrom", None):
                path = source["fieldRef"]["fieldPath"]
                variable["value"] = name if path == "metadata.name" else f"some-{path.rpartition('.')[2]}"
    for volume in spec["volumes"]:
        if volume.pop("emptyDir", None) is not None:
            empty = folder / volume["name"]
            empty.mkdir(parents=True)
            empty.chmod(0o777)
            volume["hostPath"] = {"path": str(empty)}
    metadata = {**copy.deepcopy(dict(template["metadata"])), "name": name}
    spec |= {"restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _prefixes() -> tuple[str, str]:
    """Of the environment with vLLM, and of the Python that it was made with."""
    code = "import json, sys; print(json.dumps([sys.prefix, sys.base_prefix]))"
    told = subprocess.run([str(vllm_python()), "-c", code], check=True, capture_output=True, text=True)
    prefix, base = json.loads(told.stdout)
    return str(prefix), str(base)
