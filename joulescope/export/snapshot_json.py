"""The snapshot as JSON for ``/api/snapshot``, and back: what ``joulescope top`` reads.

The object is ``{"joulescope_version", "method", "method_version", "snapshot"}``; ``snapshot`` mirrors
:class:`joulescope.model.Snapshot` field by field. JSON has no tuples as keys, so figures by two labels
(``attributed_joules``, ``exported``) are objects of objects: ``{"GPU-…": {"prefill": 1.5}}``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec

from joulescope import __version__
from joulescope.label_model import clean
from joulescope.model import METHOD, METHOD_VERSION, Snapshot


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """JSON of a snapshot."""
    envelope = {
        "joulescope_version": __version__,
        "method": METHOD,
        "method_version": METHOD_VERSION,
        "snapshot": plain(snapshot),
    }
    return msgspec.json.encode(envelope)


def decode_snapshot(body: bytes) -> Snapshot:
    """The snapshot that :func:`encode_snapshot` wrote; fields that this version does not know are skipped.

    Raises:
        ValueError: if the body is not such an object; the message names the field.
    """
    envelope = msgspec.json.decode(body)
    if not isinstance(envelope, dict) or not isinstance(envelope.get("snapshot"), dict):
        raise ValueError("not a joulescope snapshot: the object has no 'snapshot'")
    snapshot = envelope["snapshot"]
    for engine in snapshot.get("engines", ()):
        _change(engine, "attributed_joules", _flat)
    _change(snapshot.get("sidecar"), "exported", _flat)
    return msgspec.convert(snapshot, Snapshot)


def plain(value: Any) -> Any:
    """Dataclasses become objects, figures by two labels nested ones, sets sorted lists."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return _nested(value) if any(isinstance(key, tuple) for key in value) else dict(value)
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, str):
        return clean(value)
    return value


def _nested(values: Mapping[tuple[str, str], Any]) -> dict[str, dict[str, Any]]:
    nested: dict[str, dict[str, Any]] = {}
    for (outer, inner), value in values.items():
        nested.setdefault(outer, {})[inner] = value
    return nested


def _flat(nested: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], Any]:
    return {(outer, inner): value for outer, values in nested.items() for inner, value in values.items()}


def _change(holder: Any, key: str, change: Callable[[Any], Any]) -> None:
    if isinstance(holder, dict) and isinstance(holder.get(key), dict):
        try:
            holder[key] = change(holder[key])
        except AttributeError as error:
            raise ValueError(f"not a joulescope snapshot: {key!r} is not an object of objects") from error
