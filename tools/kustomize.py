"""The Kustomize components, from what joulescope is in a pod (joulescope/inject/pod.py).

python -m tools.kustomize            write them
python -m tools.kustomize --check    only look; ends with 1 if one is not as it would be written
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from joulescope import __version__
from joulescope.hook.environment import DEFAULT_SOCKET
from joulescope.inject.pod import (
    GROUP,
    HOOK_FOLDER,
    PATH_VARIABLE,
    SCRAPE_LABEL,
    SOCKET_VARIABLE,
    VERSION_ANNOTATION,
    Injection,
    engine_mounts,
)
from tools.generated import ROOT, write_or_check

FOLDER = ROOT / "deploy" / "kustomize"
HEAD = "# Written by `make deploy` from joulescope/inject/pod.py.\n"
SELECTOR = "joulescope/inject=true"
ENGINE = "vllm"
"""What the component takes vLLM's container to be called."""

_KINDS = {
    "Deployment": ("apps/v1", ("spec", "template")),
    "StatefulSet": ("apps/v1", ("spec", "template")),
    "LeaderWorkerSet": ("leaderworkerset.x-k8s.io/v1", ("spec", "leaderWorkerTemplate", "leaderTemplate")),
}
_COMPONENTS = {
    "component": (("Deployment", "StatefulSet"), ENGINE),
    "component-pod": (("Deployment", "StatefulSet"), ""),
    "component-leaderworkerset": (("LeaderWorkerSet",), ENGINE),
}
_SCHEMA_FILE = "schema.json"
_POD_TEMPLATE = {"$ref": "#/definitions/io.k8s.api.core.v1.PodTemplateSpec"}


def files() -> Mapping[str, str]:
    """Every generated file, by its path below deploy/kustomize."""
    found = {}
    for component, (kinds, engine) in _COMPONENTS.items():
        for kind in kinds:
            found[f"{component}/{kind.lower()}.yaml"] = HEAD + _dump(_patch(kind, engine))
        found[f"{component}/kustomization.yaml"] = HEAD + _dump(_kustomization(kinds))
    found[f"component-leaderworkerset/{_SCHEMA_FILE}"] = json.dumps(_schema(), indent=2) + "\n"
    return found


def _kustomization(kinds: Sequence[str]) -> dict[str, Any]:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        **({"openapi": {"path": _SCHEMA_FILE}} if "LeaderWorkerSet" in kinds else {}),
        "patches": [
            {"path": f"{kind.lower()}.yaml", "target": {"kind": kind, "labelSelector": SELECTOR}}
            for kind in kinds
        ],
    }


def _patch(kind: str, engine: str) -> dict[str, Any]:
    version, path = _KINDS[kind]
    node: dict[str, Any] = {
        "metadata": {
            "labels": {SCRAPE_LABEL: "true"},
            "annotations": {VERSION_ANNOTATION: __version__},
        },
        "spec": {
            "securityContext": {"supplementalGroups": [GROUP]},
            "initContainers": Injection().init_containers(),
            **({"containers": [engine_patch(engine)]} if engine else {}),
            "volumes": Injection().volumes(),
        },
    }
    for key in reversed(path):
        node = {key: node}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "any"}, **node}


def engine_patch(name: str) -> dict[str, Any]:
    """What vLLM's container gets, as a strategic merge patch."""
    return {
        "name": name,
        "env": [
            {"name": PATH_VARIABLE, "value": HOOK_FOLDER},
            {"name": SOCKET_VARIABLE, "value": DEFAULT_SOCKET},
        ],
        "volumeMounts": engine_mounts(),
    }


def _schema() -> dict[str, Any]:
    """Lets Kustomize merge lists of a LeaderWorkerSet by name, as in pods, in place of replacing them.

    It takes the place of Kubernetes' own schema in the whole kustomization (Kustomize 5.5): that is why the
    component is one of its own.
    """
    templates = {"leaderTemplate": _POD_TEMPLATE, "workerTemplate": _POD_TEMPLATE}
    return {
        "definitions": {
            "io.x-k8s.leaderworkerset.v1.LeaderWorkerSet": {
                "x-kubernetes-group-version-kind": [
                    {"group": "leaderworkerset.x-k8s.io", "version": "v1", "kind": "LeaderWorkerSet"}
                ],
                "properties": {
                    "spec": {"properties": {"leaderWorkerTemplate": {"properties": templates}}},
                },
            }
        }
    }


def _dump(node: dict[str, Any]) -> str:
    return yaml.dump(node, sort_keys=False, Dumper=_Dumper)


class _Dumper(yaml.SafeDumper):
    """Writes each place out: an alias in a patch would be a puzzle to its reader."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


if __name__ == "__main__":
    sys.exit(write_or_check({FOLDER / name: text for name, text in files().items()}, sys.argv[1:], "deploy"))
