"""joulescope put into a pod template, and taken out again. In place, so that whatever else is there stays."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableSequence
from typing import Any

from ruamel.yaml.scalarstring import SingleQuotedScalarString

from joulescope import __version__
from joulescope.errors import ConfigError
from joulescope.hook.environment import DEFAULT_SOCKET
from joulescope.inject.engine import find_engine
from joulescope.inject.kinds import Node, PodTemplate
from joulescope.inject.pod import (
    GROUP,
    HOOK_FOLDER,
    HOOK_VOLUME,
    INSTALLER,
    LINK_VOLUME,
    NO_TOKEN_VOLUME,
    PATH_VARIABLE,
    PLUGIN,
    PLUGINS_VARIABLE,
    PORT,
    RUN_VOLUME,
    SCRAPE_LABEL,
    SIDECAR,
    SOCKET_VARIABLE,
    VERSION_ANNOTATION,
    Injection,
    Role,
    engine_mounts,
)
from joulescope.inject.shape import check_shape, is_same_amount

_NO_TEXT = re.compile(
    r"(y|yes|n|no|on|off)|[-+]?\d[\d_]*(:[0-5]?\d)+(\.[\d_]*)?|[-+]?0b[01_]+|[-+]?[\d_]+\.?[\d_]*",
    re.IGNORECASE,
)
"""Truth values and numbers of YAML 1.1 that YAML 1.2, and so our writer, has no more: https://yaml.org/type/."""
_CONTAINERS = frozenset({SIDECAR, INSTALLER})
_VOLUMES = frozenset({RUN_VOLUME, HOOK_VOLUME, NO_TOKEN_VOLUME, LINK_VOLUME})


def inject(template: PodTemplate, injection: Injection, container: str = "") -> None:
    """Puts joulescope into a pod template, or brings what is there up to date.

    Args:
        container: name of vLLM's container, where that cannot be seen.

    Raises:
        NoEngine: if no container is vLLM.
        ConfigError: if joulescope cannot be there beside what is. The template is then as it was.
    """
    check_shape(template)
    engine = _engine(template, container)
    _check(template, engine)
    remove(template)
    _put_pod(template, injection)
    put_engine(engine)


def _engine(template: PodTemplate, container: str) -> Node:
    if template.engine is not None and not container:
        return template.engine
    containers = template.spec.get("containers") or []
    engine: Node = containers[find_engine(containers, container, template.container, template.place)]
    return engine


def put_engine(engine: Node) -> None:
    """vLLM's container: its mounts, and the variables by which it finds the hook."""
    _list(engine, "volumeMounts").extend(engine_mounts())
    variables = _list(engine, "env")
    path = _variable(variables, PATH_VARIABLE)
    if path is None:
        variables.append({"name": PATH_VARIABLE, "value": HOOK_FOLDER})
    else:
        rest = str(path.get("value") or "")
        path["value"] = f"{HOOK_FOLDER}:{rest}" if rest else HOOK_FOLDER
    variables.append({"name": SOCKET_VARIABLE, "value": DEFAULT_SOCKET})
    plugins = _variable(variables, PLUGINS_VARIABLE)
    if plugins is not None and PLUGIN not in _words(plugins):
        plugins["value"] = ",".join([*_words(plugins), PLUGIN])


def _put_pod(template: PodTemplate, injection: Injection) -> None:
    spec = template.spec
    metadata = template.holder if template.inline else _map(template.holder, "metadata")
    _map(metadata, "labels")[SCRAPE_LABEL] = "true"
    _map(metadata, "annotations")[VERSION_ANNOTATION] = __version__
    # Controllers that hold labels beside the pod spec add containers of their own, with small requests.
    guaranteed = not template.inline and is_guaranteed(spec)
    starts = _list(spec, "initContainers")
    role: Role = "worker" if template.worker else "head" if template.head else "alone"
    for offset, each in enumerate(injection.init_containers(guaranteed, role, template.head_address)):
        if spec.get("hostNetwork"):
            # Every declared port would be one of the node, and a second such pod would find no node.
            each.pop("ports", None)
        starts.insert(offset, _quoted(each))
    _list(spec, "volumes").extend(injection.volumes(role))
    _list(_map(spec, "securityContext"), "supplementalGroups").append(GROUP)
    if injection.gpu_access == "runtimeclass":
        spec.setdefault("runtimeClassName", "nvidia")


def remove(template: PodTemplate, labels: bool = True) -> bool:
    """Takes out all that :func:`inject` put in; whether there was anything.

    Without ``labels`` those stay: a worker's may be its head's too.

    Raises:
        ConfigError: if the template has no shape to look for it in.
    """
    check_shape(template)
    spec = template.spec
    found = _drop(spec, "initContainers", lambda each: each.get("name") in _CONTAINERS)
    _drop(spec, "volumes", lambda each: each.get("name") in _VOLUMES)
    if found:
        _drop_last(spec.get("securityContext") or {}, "supplementalGroups", GROUP)
        _drop_empty(spec, "securityContext")
    metadata = template.metadata
    for section, key in (("labels", SCRAPE_LABEL), ("annotations", VERSION_ANNOTATION)):
        if labels and (metadata.get(section) or {}).pop(key, None) is not None:
            _drop_empty(metadata, section)
    if found and not template.inline:
        _drop_empty(template.holder, "metadata")
    engines = [*(spec.get("containers") or []), *([template.engine] if template.engine is not None else [])]
    for engine in engines:
        remove_engine(engine)
    return found


def remove_engine(engine: Node) -> None:
    """Takes out what :func:`put_engine` put into a container."""
    if not _drop(engine, "volumeMounts", lambda each: each.get("name") in _VOLUMES):
        return
    for variable in engine.get("env") or []:
        if variable.get("name") == PATH_VARIABLE and "value" in variable:
            folders = str(variable["value"]).split(":")
            variable["value"] = ":".join(folder for folder in folders if folder != HOOK_FOLDER)
        elif variable.get("name") == PLUGINS_VARIABLE and PLUGIN in _words(variable):
            variable["value"] = ",".join(word for word in _words(variable) if word != PLUGIN)
    _drop(
        engine,
        "env",
        lambda each: (
            each.get("name") == SOCKET_VARIABLE
            or (each.get("name") == PATH_VARIABLE and each.get("value") == "")
        ),
    )


def is_guaranteed(spec: Mapping[str, Any]) -> bool:
    """Whether all containers that are not ours have limits of CPU and memory, and no lower requests.

    https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
    """
    return all(
        limits.get(kind) is not None and is_same_amount(requests.get(kind, limits[kind]), limits[kind])
        for limits, requests in _asked(spec)
        for kind in ("cpu", "memory")
    )


def _asked(spec: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for part in ("initContainers", "containers"):
        for container in spec.get(part) or ():
            if container.get("name") not in _CONTAINERS:
                resources = container.get("resources") or {}
                yield resources.get("limits") or {}, resources.get("requests") or {}


def _check(template: PodTemplate, engine: Node) -> None:
    """What is in the way, before anything is changed.

    Raises:
        ConfigError: with what to do.
    """
    spec, place = template.spec, template.place
    for name in (PATH_VARIABLE, PLUGINS_VARIABLE):
        variable = _variable(engine.get("env") or [], name)
        if variable is not None and "valueFrom" in variable:
            raise ConfigError(
                f"{place}: container {engine.get('name')} takes {name} from elsewhere (valueFrom), so that "
                "nothing can be added to it: write its value there, or add what joulescope needs yourself "
                "(docs/inject.md)"
            )
    injected = VERSION_ANNOTATION in (template.metadata.get("annotations") or {}) and _are_ours(spec)
    names = {
        str(each.get("name")) for part in ("initContainers", "containers") for each in spec.get(part) or ()
    }
    taken = sorted(names & _CONTAINERS) + sorted(
        {str(each.get("name")) for each in spec.get("volumes") or ()} & _VOLUMES
    )
    if taken and not injected:
        raise ConfigError(
            f"{place}: {', '.join(taken)} is there already and was not put there by joulescope inject "
            f"(no annotation {VERSION_ANNOTATION}): rename or remove it"
        )
    for each in spec.get("containers") or ():
        if any(port.get("containerPort") == PORT for port in each.get("ports") or ()):
            raise ConfigError(
                f"{place}: container {each.get('name')} has port {PORT}, which joulescope serves on: "
                "give it another"
            )


def _are_ours(spec: Node) -> bool:
    """Whether containers with our names have our volumes: two templates may share the annotation."""
    return all(
        any(mount.get("name") in _VOLUMES for mount in each.get("volumeMounts") or ())
        for part in ("initContainers", "containers")
        for each in spec.get(part) or ()
        if each.get("name") in _CONTAINERS
    )


def _quoted(node: Any) -> Any:
    """The same with quotes where kubectl, which reads YAML 1.1, would see no text without them."""
    if isinstance(node, dict):
        return {key: _quoted(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_quoted(value) for value in node]
    return SingleQuotedScalarString(node) if isinstance(node, str) and _NO_TEXT.fullmatch(node) else node


def _variable(variables: MutableSequence[Any], name: str) -> Node | None:
    """Of several the last, as for the container."""
    return next((each for each in reversed(variables) if each.get("name") == name), None)


def _words(variable: Mapping[str, Any]) -> list[str]:
    return [word.strip() for word in str(variable.get("value") or "").split(",") if word.strip()]


def _map(node: Node, key: str) -> Node:
    if not node.get(key):
        node[key] = {}
    found: Node = node[key]
    return found


def _list(node: Node, key: str) -> MutableSequence[Any]:
    if not node.get(key):
        node[key] = []
    found: MutableSequence[Any] = node[key]
    return found


def _drop(node: Node, key: str, ours: Callable[[Any], bool]) -> bool:
    """Takes out of a list what is ours, and the list if nothing stays; whether anything was."""
    before = node.get(key)
    if not before:
        return False
    gone = [index for index, each in enumerate(before) if ours(each)]
    for index in reversed(gone):
        del before[index]
    if gone and not before:
        del node[key]
    return bool(gone)


def _drop_last(node: Node, key: str, ours: Any) -> None:
    """Takes the last of that value out of a list: one before it is somebody else's."""
    values = node.get(key) or []
    if ours in values:
        del values[max(index for index, each in enumerate(values) if each == ours)]
        _drop_empty(node, key)


def _drop_empty(node: Node, key: str) -> None:
    if key in node and not node[key]:
        del node[key]
