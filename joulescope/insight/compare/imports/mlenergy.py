"""``results.json`` of the ML.ENERGY benchmark, version 3: language models and diffusion.

Its joules per token are the GPUs' joules of the steady window by the output tokens of that window: idle and
ramps are left out. The joules of the entire benchmark stand beside, and are taken as "all in". The batch is
in ``prometheus.json`` beside the file; GPU, number of GPUs, limit of the batch and task are in the names of
the folders. Inter-token times that arrive several at once are spread as its toolkit does. Format:
https://github.com/ml-energy/benchmark (mlenergy/llm/benchmark.py, mlenergy/diffusion/benchmark.py) and
https://github.com/ml-energy/data.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from joulescope.insight.compare.figures import QUANTILES
from joulescope.insight.compare.imports.common import (
    degrees,
    folder_gpu,
    folder_settings,
    folder_task,
    mean_latency,
    quantiles_ms,
    whole_number,
)
from joulescope.insight.compare.imports.fields import Fields, Skipped
from joulescope.insight.compare.precision import precision_of
from joulescope.insight.compare.values import CLIENT, Mean, Origin, Part, Requests, Setup, Work

FORMAT = "ml.energy v3"
PRODUCER = "the ML.ENERGY benchmark v3"
LEAST_BATCH_RATIO = 0.85
"""Below this part of ``max_num_seqs`` its toolkit calls a run unstable."""
RUNNING = "vllm:num_requests_running"

Found = tuple[Setup, Origin, Part, tuple[str, ...]]


def is_language(document: Any) -> bool:
    return isinstance(document, dict) and "steady_state_energy" in document


def is_diffusion(document: Any) -> bool:
    return (
        isinstance(document, dict)
        and "batch_size" in document
        and ("iteration_energy_measurements" in document or "iter0_energy_measurement" in document)
    )


def language(document: Any, path: Path, skipped: Skipped) -> Iterator[Found]:
    """The one run of a file."""
    fields = Fields(document, str(path), PRODUCER)
    settings = folder_settings(path)
    joules, seconds = fields.positive("steady_state_energy"), fields.positive("steady_state_duration")
    units = joules / fields.positive("steady_state_energy_per_token")
    whole, gpus = _entire(fields)
    gpu_count = whole_number(settings, "num_gpus") or fields.count_or_none("num_gpus") or gpus
    limit = whole_number(settings, "max_num_seqs") or fields.count_or_none("max_num_seqs")
    running = _running(path, skipped)
    model = fields.text("model_id")
    setup = Setup(
        model=model,
        precision=precision_of("", "", model),
        gpu=fields.text("gpu_model") or folder_gpu(path),
        gpu_count=gpu_count,
        software="vllm",
        task=folder_task(path),
    )
    completed = fields.number("completed")
    latencies, quantiles = _times(fields, completed, skipped)
    part = Part(
        where=str(path),
        steady=Work(joules, units, seconds),
        whole=whole,
        batch=None if running is None else Mean(running * seconds, seconds),
        gpu_seconds=None if gpu_count is None else gpu_count * (whole.seconds if whole else seconds),
        requests=_requests(fields, completed),
        latencies=latencies,
        quantiles=quantiles,
        group=f"max_num_seqs {limit}" if limit else path.parent.name or path.name,
    )
    yield setup, Origin(FORMAT, str(path), clock=CLIENT), part, _remarks(running, limit)


def _entire(fields: Fields) -> tuple[Work | None, int | None]:
    """Work of the whole benchmark and the number of GPUs, where they are told."""
    measured = fields.inner_or_none("entire_benchmark_measurement")
    energy = None if measured is None else measured.energy_of_gpus("gpu_energy")
    if measured is None or energy is None:
        return None, None
    return Work(energy[0], fields.number("total_output_tokens"), measured.positive("time")), energy[1]


def _requests(fields: Fields, completed: float) -> Requests:
    asked = fields.number_or_none("num_prompts") or completed
    return Requests(
        count=round(completed),
        failed=round(max(asked - completed, 0)),
        prompt_tokens=fields.number_or_none("total_input_tokens"),
        output_units=fields.number("total_output_tokens"),
    )


def _times(fields: Fields, completed: float, skipped: Skipped) -> tuple[dict[str, Mean], dict[str, float]]:
    latencies = {
        **mean_latency(fields, "itl", "itl", completed),
        **mean_latency(fields, "ttft", "ttft", completed),
        **mean_latency(fields, "e2e", "e2el", completed),
    }
    quantiles = {
        **quantiles_ms(fields, "itl", "itl"),
        **quantiles_ms(fields, "tpot", "tpot"),
        **quantiles_ms(fields, "ttft", "ttft"),
        **quantiles_ms(fields, "e2e", "e2el"),
    }
    gaps = _gaps(fields, skipped)
    if gaps.size:
        latencies["itl"] = Mean(float(gaps.sum()), float(gaps.size))
        levels = np.percentile(gaps, QUANTILES)
        quantiles.update(
            {f"itl_p{level}": float(value) for level, value in zip(QUANTILES, levels, strict=True)}
        )
    return latencies, quantiles


def _gaps(fields: Fields, skipped: Skipped) -> Any:
    """All inter-token times in seconds, spread where several tokens came at once."""
    found = []
    for request in fields.listed("results"):
        if request.values.get("success") is False or request.values.get("error"):
            continue
        times = request.values.get("itl")
        if times is None:
            continue
        gaps = _as_times(times)
        if gaps is None:
            skipped.add("inter-token times that are no list of finite numbers from 0 on", request.place)
        else:
            found.append(spread(gaps))
    return np.concatenate(found) if found else np.zeros(0)


def _as_times(told: Any) -> Any:
    try:
        times = np.asarray(told, dtype=float)
    except (TypeError, ValueError, OverflowError):
        return None
    usable = times.ndim == 1 and bool((np.isfinite(times) & (times >= 0)).all())
    return times if usable else None


def spread(times: Any) -> Any:
    """A time and the zeros after it are one delivery: each of its tokens gets an equal part."""
    heads = np.flatnonzero(times > 0)
    if not heads.size:
        return np.zeros(0)
    sizes = np.diff(np.append(heads, times.size))
    return np.repeat(times[heads] / sizes, sizes)


def _running(path: Path, skipped: Skipped) -> float | None:
    """The mean batch in the steady window; ``None`` where the file beside does not tell."""
    beside = path.with_name("prometheus.json")
    if not beside.exists():
        skipped.add("no prometheus.json beside results.json: the batch is not known", str(path))
        return None
    try:
        told = json.loads(beside.read_bytes())
    except (OSError, ValueError):
        skipped.add("prometheus.json cannot be read: the batch is not known", str(beside))
        return None
    fields = Fields(told if isinstance(told, dict) else {}, str(beside), PRODUCER)
    stats = fields.inner_or_none("steady_state_stats")
    return None if stats is None else stats.number_or_none(RUNNING)


def _remarks(running: float | None, limit: int | None) -> tuple[str, ...]:
    if running is None or not limit or running / limit >= LEAST_BATCH_RATIO:
        return ()
    return (
        f"at max_num_seqs {limit} only {running:.0f} requests ran in the mean: "
        "ML.ENERGY's own toolkit calls such a run unstable",
    )


def diffusion(document: Any, path: Path, skipped: Skipped) -> Iterator[Found]:
    """One part for each measured batch of images or videos."""
    fields = Fields(document, str(path), PRODUCER)
    batch = fields.positive("batch_size")
    frames = fields.number_or_none("num_frames")
    runs = list(fields.listed("iteration_energy_measurements")) or _numbered(fields)
    if not runs:
        raise fields.wrong("iteration_energy_measurements", "is empty: no batch was measured")
    for number, run in enumerate(runs):
        energy = run.energy_of_gpus("gpu_energy")
        seconds = run.number_or_none("time")
        if energy is None or not seconds:
            skipped.add("batches without joules or time", run.place)
            continue
        joules, gpus = energy
        part = Part(
            where=f"{path} batch {number}",
            steady=Work(joules, batch, seconds),
            batch=Mean(batch * seconds, seconds),
            gpu_seconds=gpus * seconds,
            requests=Requests(count=round(batch), output_units=batch),
            latencies={"e2e": Mean(seconds * batch, batch)},
            group=f"batch {batch:.0f}",
        )
        model = fields.text("model_id")
        setup = Setup(
            model=model,
            precision=precision_of("", "", model),
            gpu=folder_gpu(path),
            gpu_count=gpus,
            parallel=_sequence_parallel(fields),
            software="xdit",
            task=_picture_task(fields, path),
            unit="video" if frames else "image",
        )
        yield setup, Origin(FORMAT, str(path), clock=CLIENT), part, ()


def _sequence_parallel(fields: Fields) -> str:
    """Older files have the degrees among their ``configurations``."""
    above = fields.values.get("configurations")
    inner = Fields(above, fields.place, PRODUCER) if isinstance(above, Mapping) else fields
    return " ".join(degrees(fields) or degrees(inner))


def _numbered(fields: Fields) -> Sequence[Fields]:
    """Older files have a field for each iteration."""
    names = (f"iter{number}_energy_measurement" for number in range(len(fields.values)))
    return [fields.inner(name) for name in names if name in fields.values]


def _picture_task(fields: Fields, path: Path) -> str:
    """Size and steps are the work of a picture, as lengths are that of a chat."""
    size = [fields.count_or_none(name) for name in ("height", "width", "num_frames")]
    steps = fields.count_or_none("inference_steps")
    words = (
        folder_task(path) or ("text-to-video" if size[2] else "text-to-image"),
        "x".join(str(each) for each in size if each),
        f"{steps} steps" if steps else "",
    )
    return " ".join(filter(None, words))
