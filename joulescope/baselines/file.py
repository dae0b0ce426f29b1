"""One baseline as a JSON file: ``{"joulescope_baseline": 2, …}`` and the fields of
:class:`joulescope.attribution.baseline.Baseline`.

In format 1 the covariances were those of the noise that the fit is told, which is more than there is.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import msgspec

from joulescope.attribution.baseline import LEARNED, PINNED, Baseline, calibrated
from joulescope.errors import BaselineError
from joulescope.model import CostFacts

FORMAT_KEY, FORMAT, _OLD_FORMAT = "joulescope_baseline", 2, 1

MAX_BYTES = 1024 * 1024
"""A baseline has some four kilobytes; what is much larger is something else."""


_LAST_WALL_SECONDS = 253402300799.0
"""Of the year 9999: later ones have no date."""


def encode_baseline(baseline: Baseline) -> bytes:
    """The file's text."""
    written = {FORMAT_KEY: FORMAT, **asdict(baseline)}
    return msgspec.json.format(msgspec.json.encode(written), indent=2) + b"\n"


def encode_baselines(baselines: Mapping[str, Baseline]) -> bytes:
    """Those of several engines, each as in a file of its own: ``{"baselines": {"engine": {…}}}``."""
    texts = {engine: msgspec.Raw(encode_baseline(baseline)) for engine, baseline in baselines.items()}
    return msgspec.json.encode({"baselines": texts})


def decode_baselines(text: bytes, where: str) -> dict[str, Baseline]:
    """What :func:`encode_baselines` wrote.

    Raises:
        BaselineError: if it is something else.
    """
    try:
        found = msgspec.json.decode(text, type=_Baselines)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BaselineError(f"{where}: not a sidecar's baselines: {error}") from error
    return {
        engine: decode_baseline(bytes(raw), f"{where}, engine {engine!r}")
        for engine, raw in found.baselines.items()
    }


class _Baselines(msgspec.Struct):
    baselines: dict[str, msgspec.Raw]


def decode_baseline(text: bytes, where: str) -> Baseline:
    """The baseline that a file holds.

    Args:
        where: the file's name, for the message.

    Raises:
        BaselineError: if it holds none; the message names the field.
    """
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BaselineError(f"{where}: not JSON: {error}") from error
    if not isinstance(found, dict) or FORMAT_KEY not in found:
        raise BaselineError(f"{where}: not a baseline: it has no {FORMAT_KEY!r}")
    version = found.pop(FORMAT_KEY)
    if version not in (FORMAT, _OLD_FORMAT):
        raise BaselineError(
            f"{where}: baseline format {version!r}, this version reads {_OLD_FORMAT} and {FORMAT}: make the "
            "baseline anew, or use the version of joulescope that wrote it"
        )
    try:
        baseline = msgspec.convert(found, Baseline)
    except msgspec.ValidationError as error:
        raise BaselineError(f"{where}: {error}") from error
    problem = next(_problems(baseline), None)
    if problem:
        raise BaselineError(f"{where}: {problem}")
    return calibrated(baseline) if version == _OLD_FORMAT else baseline


def read_baseline(path: Path) -> Baseline:
    """Reads a file.

    Raises:
        BaselineError: if it cannot be read, or holds no baseline.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BaselineError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(text) > MAX_BYTES:
        raise BaselineError(f"{path}: larger than {MAX_BYTES} bytes, so no baseline")
    return decode_baseline(text, str(path))


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Writes a file whole or not at all: beside it first, then renamed.

    Raises:
        BaselineError: if it cannot be written.
    """
    beside: str | None = None
    try:
        descriptor, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode_baseline(baseline))
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except OSError as error:
        if beside is not None and os.path.exists(beside):
            os.unlink(beside)
        raise BaselineError(f"{path}: cannot be written: {error.strerror or error}") from error


def _problems(baseline: Baseline) -> Iterator[str]:
    """What is wrong with the figures; types are right already."""
    times, energies = baseline.time_coefficients, baseline.energy_coefficients
    expected = 7 if baseline.cost.expert_weight_bytes and baseline.cost.expert_choice_ratio else 5
    if len(times) != expected:
        yield f"time_coefficients has {len(times)} values, {expected} are needed for this model"
    if len(energies) != 5:
        yield f"energy_coefficients has {len(energies)} values, 5 are needed"
    for name, values in (("time_coefficients", times), ("energy_coefficients", energies)):
        if not all(math.isfinite(value) and value > 0.0 for value in values):
            yield f"{name} must be finite and above 0"
    for name, rows, size in (
        ("time_covariance", baseline.time_covariance, len(times)),
        ("energy_covariance", baseline.energy_covariance, len(energies)),
    ):
        if not _is_square(rows, size):
            yield f"{name} must be {size} rows of {size} finite values"
        elif any(row[at] < 0.0 for at, row in enumerate(rows)):
            yield f"{name} has a variance below 0"
    for name in ("scale", "limit_watts"):
        if not (math.isfinite(getattr(baseline, name)) and getattr(baseline, name) > 0.0):
            yield f"{name} must be finite and above 0"
    for name in ("scatter", "idle_watts", "busy_seconds"):
        if not (math.isfinite(getattr(baseline, name)) and getattr(baseline, name) >= 0.0):
            yield f"{name} must be finite and not below 0"
    if not 0.0 <= baseline.created_wall_seconds <= _LAST_WALL_SECONDS:
        yield "created_wall_seconds must lie between the years 1970 and 9999"
    yield from _problems_of_facts(baseline)
    if not 0.0 <= baseline.unevenness <= 1.0:
        yield "unevenness must lie between 0 and 1"
    if not all(math.isfinite(value) and value >= 0.0 for value in baseline.wait_seconds):
        yield "wait_seconds must be finite and not below 0"
    if baseline.identity.gpu_count < 1:
        yield "identity.gpu_count must be 1 at least"
    if baseline.source not in (PINNED, LEARNED):
        yield f"source must be {PINNED!r} or {LEARNED!r}"


def _problems_of_facts(baseline: Baseline) -> Iterator[str]:
    """What is wrong with the model's bytes and FLOPs, and with what was cached."""
    for field in fields(CostFacts):
        value = getattr(baseline.cost, field.name)
        if isinstance(value, float) and not (math.isfinite(value) and value >= 0.0):
            yield f"cost.{field.name} must be finite and not below 0"
    for at, use in enumerate(baseline.cache):
        if use.requests < 1 or use.up_to_tokens < 1 or not 0 <= use.cached_tokens <= use.prompt_tokens:
            yield (
                f"cache[{at}] must have a request at least, up_to_tokens above 0, and no more cached_tokens "
                "than prompt_tokens"
            )


def _is_square(rows: Sequence[Sequence[float]], size: int) -> bool:
    return len(rows) == size and all(len(row) == size and all(map(math.isfinite, row)) for row in rows)
