"""Helm's own engine, on the charts of this repository."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "deploy" / "helm"
CHART = CHARTS / "joulescope"
VALUE_SETS = sorted(CHART.glob("ci/*-values.yaml"))

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C where it can be had: dashboards are long."""


@functools.cache
def chart(path: Path = CHART) -> helm_python.Chart:
    return helm_python.Chart.load(str(path))


def render(values: Mapping[str, Any], path: Path = CHART, name: str = "demo") -> dict[str, str]:
    """What Helm would send, by template, without those that render nothing."""
    return dict(_rendered(json.dumps(values), path, name))


@functools.cache
def _rendered(values: str, path: Path, name: str) -> dict[str, str]:
    files = chart(path).render(json.loads(values), name=name, namespace="inference")
    return {each.partition("/")[2]: text for each, text in sorted(files.items()) if text.strip()}


def documents(files: Mapping[str, str]) -> list[dict[str, Any]]:
    """The objects in what was rendered."""
    return [
        document
        for name, text in files.items()
        if not name.endswith(".txt")
        for document in yaml.load_all(text, _LOADER)
        if document is not None
    ]


def values_of(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()) or {})
