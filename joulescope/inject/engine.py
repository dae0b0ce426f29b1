"""Which container of a pod is vLLM."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from joulescope.errors import ConfigError
from joulescope.inject.pod import INSTALLER, SIDECAR

_RUNS = re.compile(r"\bvllm\s+serve\b|\bvllm\.entrypoints\.|\bvllm\s+bench\b|\bray\s+(start|job)\b")
_IMAGE = re.compile(r"(^|[/_-])(vllm|llm-d)([-_:@/]|$)")


class NoEngine(ConfigError):
    """No container of the pod is vLLM."""


def find_engine(
    containers: Sequence[Mapping[str, Any]], name: str = "", usual: str = "", place: str = "the pod"
) -> int:
    """Index of vLLM's container: the one of that name, or the one that starts vLLM, or whose image is vLLM's.

    ``usual`` is what it is called by convention, where nothing else tells.

    Raises:
        NoEngine: if there is none.
        ConfigError: if there are several, and no name says which.
    """
    names = [str(container.get("name", "")) for container in containers]
    if name:
        if name in names:
            return names.index(name)
        raise NoEngine(f"{place} has no container {name}; it has {', '.join(names) or 'none'}")
    for marks in (_starts_vllm, _is_vllm_image, _is_called_vllm):
        found = [index for index, container in enumerate(containers) if marks(container)]
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(names[index] for index in found)
            raise ConfigError(
                f"{place} has several containers that may be vLLM: {several}; choose with --container"
            )
    if usual in names:
        return names.index(usual)
    raise NoEngine(f"{place} has no container that is vLLM; name it with --container if one is")


def _starts_vllm(container: Mapping[str, Any]) -> bool:
    words = [str(word) for part in ("command", "args") for word in container.get(part) or ()]
    return container.get("name") not in (SIDECAR, INSTALLER) and bool(_RUNS.search(" ".join(words)))


def _is_vllm_image(container: Mapping[str, Any]) -> bool:
    image = str(container.get("image", ""))
    return not re.search(r"sidecar|proxy|router|scheduler", image) and bool(_IMAGE.search(image))


def _is_called_vllm(container: Mapping[str, Any]) -> bool:
    return bool(re.search(r"(^|-)vllm(-|$)", str(container.get("name", ""))))
