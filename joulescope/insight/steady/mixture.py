"""Several ways in which one service may fare, each for a part of the time, in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from joulescope.insight.steady.values import Operation, Parts

_BY_TOKEN = ("joules_per_token", "recompute_joules_per_token", "prefill_joules_per_token")
_BY_REQUEST = ("inter_token_seconds", "first_token_seconds", "queue_seconds", "intake_seconds")


def mixed(parts: Sequence[tuple[float, Operation]]) -> Operation:
    """Means over the parts' times, tokens or requests, whatever a figure is by.

    Args:
        parts: the part of the time, and how it fares then; the last tells what it could serve.
    """
    if len(parts) == 1:
        return parts[0][1]
    times = [time for time, _ in parts]
    tokens = [time * each.tokens_per_second for time, each in parts]
    requests = [time * each.requests_per_second for time, each in parts]
    operations = [each for _, each in parts]
    told: dict[str, Any] = {}
    for field in fields(Operation):
        name = field.name
        if name in ("joules_per_token", "saturated", "capacity_requests_per_second"):
            continue
        weights = tokens if name in _BY_TOKEN else requests if name in _BY_REQUEST else times
        if not sum(weights) > 0.0:
            weights = times
        told[name] = _mean([getattr(each, name) for each in operations], weights)
    return replace(operations[-1], joules_per_token=_parts(operations, tokens), **told)


def _mean(values: Sequence[float | None], weights: Sequence[float]) -> float | None:
    """Not known where one of them is not."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return None
    return sum(value * weight for value, weight in zip(known, weights, strict=True)) / sum(weights)


def _parts(operations: Sequence[Operation], tokens: Sequence[float]) -> Parts | None:
    whole = sum(tokens)
    if not whole > 0.0:
        return None
    sums = dict.fromkeys((field.name for field in fields(Parts)), 0.0)
    for operation, weight in zip(operations, tokens, strict=True):
        for name in sums:
            sums[name] += getattr(operation.joules_per_token or Parts(), name) * weight / whole
    return Parts(**sums)
