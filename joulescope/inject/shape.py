"""Whether a pod template has the shapes that Kubernetes asks for, as far as joulescope looks at them."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from decimal import Decimal, InvalidOperation
from typing import Any

from joulescope.errors import ConfigError
from joulescope.inject.kinds import PodTemplate

_UNITS = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("k", "M", "G", "T", "P", "E"), 1)},
    **{unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
}


def check_shape(template: PodTemplate) -> None:
    """So that nothing is half changed before an odd part is met.

    Raises:
        ConfigError: which part is not what it should be.
    """
    place, spec = template.place, template.spec
    _mapping(template.metadata, f"{place}: metadata")
    for key in ("labels", "annotations"):
        _mapping(template.metadata.get(key), f"{place}: {key}")
    _mapping(spec.get("securityContext"), f"{place}: securityContext")
    _mappings(spec.get("volumes"), f"{place}: volumes")
    engines = [template.engine] if template.engine is not None else []
    for key in ("initContainers", "containers"):
        _mappings(spec.get(key), f"{place}: {key}")
        engines.extend(spec.get(key) or ())
    for container in engines:
        of = f"{place}: container {container.get('name', '?')}:"
        for key in ("env", "ports", "volumeMounts"):
            _mappings(container.get(key), f"{of} {key}")
        resources = container.get("resources")
        _mapping(resources, f"{of} resources")
        for key in ("limits", "requests"):
            _mapping((resources or {}).get(key), f"{of} {key}")


def is_same_amount(one: Any, other: Any) -> bool:
    """Of two quantities, however they are written: ``4`` and ``"4000m"``.

    https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
    """
    return bool(one == other or _amount(one) == _amount(other))


def _amount(quantity: Any) -> Decimal | str:
    text = str(quantity).strip()
    number = text.rstrip("numkMGTPEi")
    try:
        return Decimal(number) * _UNITS.get(text[len(number) :], Decimal(1))
    except InvalidOperation:
        return text


def _mapping(node: Any, what: str) -> None:
    if node and not isinstance(node, Mapping):
        raise ConfigError(f"{what} is not a mapping (name: value)")


def _mappings(node: Any, what: str) -> None:
    if node and not (isinstance(node, list) and all(isinstance(each, MutableMapping) for each in node)):
        raise ConfigError(f"{what} is not a list of mappings (- name: value)")
