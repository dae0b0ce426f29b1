"""A diagnosis as a JSON object: the same figures as in the text and the picture."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from joulescope.insight.diagnosis.causes import CAUSES
from joulescope.insight.diagnosis.diagnosis import Diagnosis, Part, Told
from joulescope.insight.diagnosis.latents import BESIDE

SCHEMA = "joulescope.diagnosis/1"


def told(diagnosis: Diagnosis) -> dict[str, Any]:
    """The diagnosis; ``null``: not known. ``before.joules_per_token`` and all parts sum to that after."""
    named = diagnosis.named
    return {
        "schema": SCHEMA,
        "engine": diagnosis.engine,
        "unit": diagnosis.unit,
        "before": _window(diagnosis.before),
        "after": _window(diagnosis.after),
        "change_joules_per_token": diagnosis.change,
        "first_cause": None if named is None else named.cause,
        "parts": [_part(part, diagnosis) for part in diagnosis.parts],
        "closed_loop": diagnosis.closed_loop,
        "notes": list(diagnosis.notes),
    }


def _window(window: Told) -> dict[str, Any]:
    return {**asdict(window), "kind": asdict(window.kind)}


def _part(part: Part, diagnosis: Diagnosis) -> dict[str, Any]:
    ends = (diagnosis.before.latents, diagnosis.after.latents)
    return {
        "cause": part.cause,
        "title": CAUSES[part.cause].title,
        "meaning": CAUSES[part.cause].meaning,
        "joules_per_token": part.joules_per_token,
        "standard_error": part.error,
        "share": part.joules_per_token / diagnosis.change if diagnosis.change else None,
        "significant": part.significant,
        "sentence": part.sentence,
        "latents": {
            name: {"before": _plain(getattr(ends[0], name)), "after": _plain(getattr(ends[1], name))}
            for name in BESIDE[part.cause]
        },
    }


def _plain(value: Any) -> Any:
    """A latent figure; tasks as objects."""
    return [asdict(each) for each in value] if isinstance(value, tuple) else value
