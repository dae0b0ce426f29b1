"""Where a Kubernetes document has pod templates, by its kind.

Shapes of kinds that are not Kubernetes' own, as their types say (read 2026-11): LeaderWorkerSet v1 of
kubernetes-sigs/lws, InferenceService v1beta1 and LLMInferenceService v1alpha1 of KServe, RayCluster and
RayService v1 of KubeRay.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

Node = MutableMapping[str, Any]

_TEMPLATE_PATHS: Mapping[str, tuple[str, ...]] = {
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "DaemonSet": ("spec", "template"),
    "Deployment": ("spec", "template"),
    "Job": ("spec", "template"),
    "Pod": (),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Rollout": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
}
_LEADER = "$(LWS_LEADER_ADDRESS)"
"""LeaderWorkerSet gives all containers of a group this variable."""

_OTHER_FORMATS = frozenset(
    {"catboost", "lightgbm", "mlflow", "onnx", "paddle", "pmml", "sklearn", "tensorflow", "xgboost"}
)
"""Of an InferenceService's ``model``: what vLLM never serves."""
_RUNTIMES = frozenset({"ServingRuntime", "ClusterServingRuntime"})


@dataclass(frozen=True)
class PodTemplate:
    """One pod template of a document.

    Args:
        place: names it in messages.
        holder: has ``metadata``, or, where ``inline``, labels and annotations themselves.
        spec: the pod spec.
        engine: vLLM's container where the kind says which it is, in place of a search.
        container: name of vLLM's container by the kind's convention.
        head: whether its pod is the first node of an engine over several.
        worker: whether its pods are the others, and
        head_address: where those find the first; empty if nothing in the pod tells.
    """

    place: str
    holder: Node
    spec: Node
    inline: bool = False
    engine: Node | None = None
    container: str = ""
    head: bool = False
    worker: bool = False
    head_address: str = ""

    @property
    def metadata(self) -> Node:
        """Has labels and annotations; empty, and not the template's, where it has none yet."""
        return self.holder if self.inline else self.holder.get("metadata") or {}


@dataclass(frozen=True)
class Unfit:
    """A document that has vLLM in it and no room for a sidecar, and what to do instead."""

    place: str
    advice: str


def documents_of(document: Node) -> Iterator[Node]:
    """The document, or those in it if it is a list of them."""
    items = document.get("items")
    if str(document.get("kind", "")).endswith("List") and isinstance(items, list):
        for item in items:
            if isinstance(item, MutableMapping):
                yield from documents_of(item)
    else:
        yield document


def templates_of(document: Node) -> Iterator[PodTemplate | Unfit]:
    """The pod templates of one document, which is not a list; none where its kind is not known."""
    kind = str(document.get("kind", ""))
    place = f"{kind}/{(_at(document, 'metadata') or {}).get('name', '?')}"
    if kind in _TEMPLATE_PATHS:
        yield from _plain(_at(document, *_TEMPLATE_PATHS[kind]), place)
    elif kind == "LeaderWorkerSet":
        yield from _leader_and_workers(document, place)
    elif kind == "InferenceService":
        yield from _predictor(document, place)
    elif kind in ("LLMInferenceService", "LLMInferenceServiceConfig"):
        yield from _llm_workloads(document, place)
    elif kind in ("RayCluster", "RayService", "RayJob"):
        yield from _ray(document, kind, place)
    elif kind in _RUNTIMES:
        yield Unfit(place, "it has no init containers: inject the InferenceService that uses it")


def _plain(
    template: Node | None, place: str, head: bool = False, worker: bool = False, head_address: str = ""
) -> Iterator[PodTemplate]:
    spec = _at(template, "spec")
    if template is not None and spec is not None:
        yield PodTemplate(place, template, spec, head=head, worker=worker, head_address=head_address)


def _leader_and_workers(document: Node, place: str) -> Iterator[PodTemplate]:
    """Without a template of its own the leader has the workers'."""
    both = _at(document, "spec", "leaderWorkerTemplate")
    leader, worker = _at(both, "leaderTemplate"), _at(both, "workerTemplate")
    if leader is None:
        yield from _plain(worker, f"{place} workerTemplate")
    else:
        yield from _plain(leader, f"{place} leaderTemplate", head=worker is not None)
        yield from _plain(worker, f"{place} workerTemplate", worker=True, head_address=_LEADER)


def _predictor(document: Node, place: str) -> Iterator[PodTemplate]:
    """A predictor is a pod spec with labels and annotations in it, and often ``model`` for a container."""
    predictor = _at(document, "spec", "predictor")
    if predictor is not None:
        model, worker = _at(predictor, "model"), _at(predictor, "workerSpec")
        yield PodTemplate(
            f"{place} predictor",
            predictor,
            predictor,
            inline=True,
            engine=model if _may_be_vllm(model) else None,
            head=worker is not None,
        )
        if worker is not None:
            yield PodTemplate(f"{place} workerSpec", worker, worker, inline=True, worker=True)


def _may_be_vllm(model: Node | None) -> bool:
    model_format = str((_at(model, "modelFormat") or {}).get("name", ""))
    return model is not None and model_format.lower() not in _OTHER_FORMATS


def _llm_workloads(document: Node, place: str) -> Iterator[PodTemplate]:
    for path in (("spec",), ("spec", "prefill")):
        workload = _at(document, *path)
        for name in ("template", "worker"):
            spec = _at(workload, name)
            if workload is not None and spec is not None:
                yield PodTemplate(
                    f"{place} {'.'.join((*path, name))}",
                    workload,
                    spec,
                    inline=True,
                    container="main",
                    head=name == "template" and _at(workload, "worker") is not None,
                    worker=name == "worker",
                    head_address=_LEADER,
                )


def _ray(document: Node, kind: str, place: str) -> Iterator[PodTemplate]:
    inner = {"RayCluster": (), "RayService": ("rayClusterConfig",), "RayJob": ("rayClusterSpec",)}[kind]
    cluster = _at(document, "spec", *inner)
    listed = (cluster or {}).get("workerGroupSpecs")
    groups = listed if isinstance(listed, list) else []
    yield from _plain(_at(cluster, "headGroupSpec", "template"), f"{place} headGroupSpec", head=bool(groups))
    for group in groups:
        yield from _plain(_at(group, "template"), f"{place} workerGroupSpecs", worker=True)


def _at(node: Any, *path: str) -> Node | None:
    for key in path:
        node = node.get(key) if isinstance(node, MutableMapping) else None
    return node if isinstance(node, MutableMapping) else None
