"""What ``vllm bench serve --save-result`` writes, one JSON object a run, several if it was told to append.

Fields: https://github.com/vllm-project/vllm/blob/main/vllm/benchmarks/serve.py. It has times and lengths,
and joules (``gpu_energy_j``, of the whole run) only where they were asked for and the release reads them.
What GPUs served it does not say: ``--metadata gpu=H100 gpu_count=1 precision=fp8 task=chat`` writes it into
the file, and is read here. The batch is what the client had under way: requests/s times the time of each.
That time is in ``mean_e2el_ms`` if it was asked for; 0.32 always writes ``latencies`` too, a list of
seconds, 0 for a request that failed; others tell of single requests with ``--save-detailed``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from joulescope.insight.compare.figures import QUANTILES
from joulescope.insight.compare.imports.common import mean_latency, quantiles_ms
from joulescope.insight.compare.imports.fields import Fields, Skipped
from joulescope.insight.compare.imports.mlenergy import Found
from joulescope.insight.compare.precision import gpu_of, parallel_of, precision_of
from joulescope.insight.compare.values import CLIENT, Mean, Origin, Part, Requests, Setup, Work

FORMAT = "vllm bench serve"
PRODUCER = "`vllm bench serve --save-result`"
_LEAST_MEDIAN_RATIO = 0.1
_MOST_PIECE_RATIO = 0.25
"""Means of all tokens and of requests' means differ a little anyway."""


def is_serve(document: Any) -> bool:
    return isinstance(document, dict) and {"duration", "completed", "request_throughput"} <= document.keys()


def is_other_bench(document: Any) -> bool:
    """Of `vllm bench throughput` or `latency`."""
    return isinstance(document, dict) and (
        {"elapsed_time", "tokens_per_second"} <= document.keys()
        or {"avg_latency", "percentiles"} <= document.keys()
    )


def serve(document: Any, path: Path, place: str, skipped: Skipped) -> Iterator[Found]:
    """The one run of an object."""
    fields = Fields(document, place, PRODUCER)
    seconds, completed = fields.positive("duration"), fields.positive("completed")
    tokens = fields.number_or_none("total_output_tokens")
    if not tokens:
        raise fields.wrong(
            "total_output_tokens",
            "is missing or 0: nothing was generated",
            "embeddings are not compared here",
        )
    latencies, quantiles = _times(fields, completed, tokens)
    end = latencies.get("e2e")
    part = Part(
        where=place,
        whole=Work(_joules(fields), tokens, seconds),
        batch=None if end is None else Mean(end.total / end.count * completed, seconds),
        gpu_seconds=_gpu_seconds(fields, seconds),
        requests=Requests(
            count=round(completed),
            failed=_failed(fields, completed),
            prompt_tokens=fields.number_or_none("total_input_tokens"),
            output_units=tokens,
        ),
        latencies=latencies,
        quantiles=quantiles,
        group=f"{place} {_load(fields)}",
    )
    yield _setup(fields), Origin(FORMAT, str(path), clock=CLIENT), part, _remarks(fields, end)


def _joules(fields: Fields) -> float | None:
    return fields.number_or_none("gpu_energy_j") or None


def _gpu_seconds(fields: Fields, seconds: float) -> float | None:
    gpus = _gpu_count(fields)
    return None if gpus is None else gpus * seconds


def _failed(fields: Fields, completed: float) -> int:
    told = fields.number_or_none("failed")
    asked = fields.number_or_none("num_prompts") or completed
    return round(told if told is not None else max(asked - completed, 0))


def _times(fields: Fields, completed: float, tokens: float) -> tuple[dict[str, Mean], dict[str, float]]:
    """Means and quantiles as written; what is missing is made of single requests, where they are told.

    Its ``itl`` is the time between two pieces that the client got, and a piece may hold several tokens, or
    come at one instant with others. So the time by token is made of what follows the first token, and
    quantiles of pieces are left out where they are none of tokens.
    """
    gaps = max(tokens - completed, 0)
    latencies = {
        **mean_latency(fields, "ttft", "ttft", completed),
        **mean_latency(fields, "e2e", "e2el", completed),
    }
    quantiles: dict[str, float] = {}
    for name, theirs in (("itl", "itl"), ("tpot", "tpot"), ("ttft", "ttft"), ("e2e", "e2el")):
        if name != "itl" or _is_by_token(fields):
            quantiles.update(quantiles_ms(fields, name, theirs))
    ends = _ends(fields)
    if "e2e" not in latencies and ends:
        latencies["e2e"] = Mean(sum(ends), len(ends))
        levels = np.percentile(ends, QUANTILES)
        quantiles.update({f"e2e_p{level}": float(end) for level, end in zip(QUANTILES, levels, strict=True)})
    if "ttft" not in latencies:
        return {**latencies, **mean_latency(fields, "itl", "itl", gaps)}, quantiles
    if "e2e" in latencies:
        after = latencies["e2e"].total * completed / latencies["e2e"].count - latencies["ttft"].total
        latencies |= {"itl": Mean(after, gaps)} if gaps and after > 0 else {}
    else:
        theirs = "itl" if _is_by_token(fields) or fields.number_or_none("mean_tpot_ms") is None else "tpot"
        latencies |= mean_latency(fields, "itl", theirs, gaps)
        if "itl" in latencies:
            latencies["e2e"] = Mean(latencies["ttft"].total + latencies["itl"].total, completed)
    return latencies, quantiles


def _is_by_token(fields: Fields) -> bool:
    """Whether pieces were tokens: their mean time is that of requests' tokens, and half of them took some."""
    pieces, tokens = fields.number_or_none("mean_itl_ms"), fields.number_or_none("mean_tpot_ms")
    median = fields.number_or_none("median_itl_ms")
    if not pieces or (median is not None and median < _LEAST_MEDIAN_RATIO * pieces):
        return False
    return not tokens or abs(pieces / tokens - 1) <= _MOST_PIECE_RATIO


def _ends(fields: Fields) -> list[float]:
    """Seconds of each request that succeeded, from what is told of single requests."""
    told = fields.values.get("latencies")
    if isinstance(told, list) and told:
        if not all(isinstance(each, int | float) and 0 <= each < math.inf for each in told):
            raise fields.wrong("latencies", "is no list of numbers of at least 0")
        return [float(each) for each in told if each]
    firsts, gaps, errors = (fields.values.get(name) for name in ("ttfts", "itls", "errors"))
    if not isinstance(firsts, list) or not isinstance(gaps, list) or len(firsts) != len(gaps):
        return []
    failed = errors if isinstance(errors, list) and len(errors) == len(firsts) else [""] * len(firsts)
    try:
        return [
            float(first) + float(sum(times))
            for first, times, error in zip(firsts, gaps, failed, strict=True)
            if not error and first
        ]
    except (TypeError, ValueError):
        raise fields.wrong("itls", "is no list of lists of numbers beside ttfts, a list of numbers") from None


def _load(fields: Fields) -> str:
    concurrency, rate = fields.values.get("max_concurrency"), fields.values.get("request_rate")
    if concurrency is not None:
        return f"concurrency {concurrency}"
    return f"{rate}/s" if rate is not None else ""


def _gpu_count(fields: Fields) -> int | None:
    for name in ("gpu_count", "num_gpus", "gpus"):
        text = str(fields.values.get(name, ""))
        if text.isdecimal():
            return int(text)
    listed = fields.values.get("energy_gpu_ids")
    return len(listed) if isinstance(listed, list) and listed else None


def _setup(fields: Fields) -> Setup:
    """Model, and what ``--metadata`` told."""

    def told(*names: str) -> str:
        return next((str(fields.values[name]) for name in names if fields.values.get(name)), "")

    model = fields.text("model_id")
    tensor = told("tensor_parallel_size", "tensor_parallel", "tp")
    return Setup(
        model=model,
        precision=precision_of(told("precision", "dtype"), told("quantization"), model),
        gpu=gpu_of(told("gpu", "gpu_name", "gpu_model")),
        gpu_count=_gpu_count(fields),
        parallel=parallel_of(int(tensor) if tensor.isdecimal() else 1, 1, 1),
        software=f"vllm {told('vllm_version', 'version')}".strip(),
        task=told("task"),
    )


def _remarks(fields: Fields, end: Mean | None) -> tuple[str, ...]:
    found = []
    if end is not None and fields.number_or_none("mean_e2el_ms") is None and not _ends(fields):
        found.append(
            "the file has no end-to-end times (--percentile-metrics ttft,tpot,itl,e2el): E2E and batch are "
            "those of the mean first token and the mean inter-token time"
        )
    return tuple(found)
