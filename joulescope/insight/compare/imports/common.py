"""What importers share: latencies by the names that most benchmarks use, and facts from folders' names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from joulescope.insight.compare.figures import QUANTILES
from joulescope.insight.compare.imports.fields import Fields
from joulescope.insight.compare.precision import gpu_of, is_gpu
from joulescope.insight.compare.values import Mean, Origin, Part, Setup, Source, Work

TASKS = (
    "lm-arena-chat",
    "gpqa",
    "sourcegraph-fim",
    "image-chat",
    "video-chat",
    "audio-chat",
    "omni-chat",
    "length-control",
    "text-to-image",
    "text-to-video",
    "image-to-video",
)
"""Tasks of ML.ENERGY, as its folders are named."""


def mean_latency(document: Fields, name: str, theirs: str, count: float) -> dict[str, Mean]:
    """``mean_<theirs>_ms``, as a mean over ``count``; nothing where it is absent or 0 (not measured)."""
    value = document.number_or_none(f"mean_{theirs}_ms")
    return {name: Mean(value / 1e3 * count, count)} if value and count > 0 else {}


def quantiles_ms(document: Fields, name: str, theirs: str) -> dict[str, float]:
    """``p90_<theirs>_ms`` and so on, in seconds; the median may be called so."""
    found = {}
    for level in QUANTILES:
        value = document.number_or_none(f"p{level}_{theirs}_ms")
        if value is None and level == 50:
            value = document.number_or_none(f"median_{theirs}_ms")
        if value:
            found[f"{name}_p{level}"] = value / 1e3
    return found


def folder_settings(path: Path) -> dict[str, str]:
    """Settings in a folder's name such as ``num_gpus+1+max_num_seqs+128``, of the nearest that has them."""
    for folder in path.parents:
        words = folder.name.split("+")
        if len(words) >= 2 and "num_gpus" in words[::2]:
            return dict(zip(words[::2], words[1::2], strict=False))
    return {}


def folder_gpu(path: Path) -> str:
    """The GPU that a folder is named after, the nearest; empty if there is none."""
    return next((gpu_of(folder.name) for folder in path.parents if is_gpu(folder.name)), "")


def folder_task(path: Path) -> str:
    return next((folder.name for folder in path.parents if folder.name in TASKS), "")


def degrees(fields: Fields) -> list[str]:
    """How an image is cut among GPUs, ``U2`` by Ulysses, ``R4`` by rings; empty where it is not."""
    told = (("U", fields.count_or_none("ulysses_degree")), ("R", fields.count_or_none("ring_degree")))
    return [f"{short}{degree}" for short, degree in told if (degree or 1) > 1]


def whole_number(settings: Mapping[str, str], name: str) -> int | None:
    text = settings.get(name, "")
    return int(text) if text.isdecimal() else None


def joined(found: Iterable[tuple[Setup, Origin, Part, tuple[str, ...]]]) -> list[Source]:
    """One source for each setup and format, parts in the order given.

    A row of a leaderboard that stands in a second file too counts once: it is not another measurement.
    """
    sources: dict[tuple[Setup, str], Source] = {}
    rows: set[tuple[Setup, str, Work | None]] = set()
    for setup, origin, part, remarks in found:
        if not part.lasted:
            row = (setup, part.group, part.steady)
            if row in rows:
                continue
            rows.add(row)
        key = (setup, origin.format)
        before = sources.get(key, Source(setup, origin, ()))
        sources[key] = replace(
            before, parts=(*before.parts, part), remarks=tuple(dict.fromkeys((*before.remarks, *remarks)))
        )
    return list(sources.values())
