"""Reports of GuideLLM (``benchmarks.json``, ``benchmarks.yaml``): one part for each benchmark of a sweep.

It has no joules. Read are reports without a version (up to 0.4) and those of schema 1 and 2
(``metadata.version``), whose distributions have the same form: ``metrics.<name>.successful`` with ``mean``,
``total_sum`` and ``percentiles``. Its inter-token latency is a mean of each request, weighted by tokens, so
its percentiles are those of requests (``tpot``). The batch is the concurrency that its client saw. Format:
https://github.com/vllm-project/guidellm (src/guidellm/benchmark).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from joulescope.errors import ComparisonError
from joulescope.insight.compare.figures import QUANTILES
from joulescope.insight.compare.imports.fields import Fields, Skipped
from joulescope.insight.compare.imports.mlenergy import Found
from joulescope.insight.compare.precision import precision_of
from joulescope.insight.compare.values import CLIENT, Mean, Origin, Part, Requests, Setup, Work

FORMAT = "guidellm"
SCHEMAS = (1, 2)
_MODELS = (
    ("worker", "backend_model"),
    ("config", "backend", "model"),
    ("config", "backend", "model_name"),
    ("args", "model"),
    ("args", "backend", "model"),
    ("config", "spec", "backend", "model"),
    ("args", "spec", "backend", "model"),
)
"""Where releases put the model's name, in the benchmark or in the report."""
_TIMES = (
    ("ttft", "time_to_first_token_ms", 1e-3),
    ("tpot", "inter_token_latency_ms", 1e-3),
    ("e2e", "request_latency", 1.0),
)


def is_report(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("benchmarks"), list)


def report(document: Any, path: Path, skipped: Skipped) -> Iterator[Found]:
    """One part for each benchmark; those of which nothing succeeded are passed over."""
    fields = Fields(document, str(path), "GuideLLM")
    version = _version(fields)
    for benchmark in fields.listed("benchmarks"):
        if "metrics" not in benchmark.values:
            raise benchmark.wrong(
                "metrics",
                "is missing: reports of GuideLLM before 0.2 are not read",
                "run the benchmark with a newer GuideLLM",
            )
        try:
            yield _benchmark(benchmark, fields, path, version)
        except ComparisonError as error:
            skipped.add("benchmarks of GuideLLM that lack a figure", str(error))


def _version(fields: Fields) -> str:
    metadata = fields.inner_or_none("metadata")
    if metadata is None:
        return ""
    schema = metadata.values.get("version")
    if schema is not None and schema not in SCHEMAS:
        known = " and ".join(map(str, SCHEMAS))
        raise metadata.wrong(
            "version",
            f"is {schema!r}; known are {known}",
            "use a newer joulescope, or a report of that schema",
        )
    return metadata.text("guidellm_version")


def _benchmark(benchmark: Fields, report_fields: Fields, path: Path, version: str) -> Found:
    metrics = benchmark.inner("metrics")
    answers = _good(metrics, "output_token_count")
    done, tokens = answers.number("count"), answers.number("total_sum")
    if not done or not tokens:
        raise answers.wrong("count", "is 0: no request succeeded")
    seconds = _seconds(benchmark)
    batch = _good(metrics, "request_concurrency").number_or_none("mean")
    latencies, quantiles = _times(metrics, done, tokens)
    prompts = _good(metrics, "prompt_token_count").number_or_none("total_sum")
    part = Part(
        where=benchmark.place,
        whole=Work(None, tokens, seconds),
        batch=Mean(batch * seconds, seconds) if batch else None,
        requests=Requests(
            count=round(done), failed=_failed(benchmark, metrics), prompt_tokens=prompts, output_units=tokens
        ),
        latencies=latencies,
        quantiles=quantiles,
        group=f"{benchmark.place} {_load(benchmark)}".strip(),
    )
    model = _model(benchmark, report_fields)
    origin = Origin(f"{FORMAT} {version}".strip(), str(path), clock=CLIENT)
    return Setup(model=model, precision=precision_of("", "", model)), origin, part, _warnings(benchmark)


def _warnings(benchmark: Fields) -> tuple[str, ...]:
    """What GuideLLM (from 0.8 on) itself says against the benchmark."""
    told = ((each.text("message"), each.text("note")) for each in benchmark.listed("warnings"))
    return tuple(f"GuideLLM: {' '.join(filter(None, words))}" for words in told if any(words))


def _good(metrics: Fields, name: str) -> Fields:
    """The distribution over the requests that succeeded."""
    return metrics.inner(name).inner("successful")


def _times(metrics: Fields, done: float, tokens: float) -> tuple[dict[str, Mean], dict[str, float]]:
    latencies, quantiles = {}, {}
    for name, theirs, scale in _TIMES:
        told = _good(metrics, theirs)
        mean = told.number_or_none("mean")
        count = max(tokens - done, 0) if name == "tpot" else done
        if mean and count:
            latencies["itl" if name == "tpot" else name] = Mean(mean * scale * count, count)
        percentiles = told.inner_or_none("percentiles")
        for level in QUANTILES if percentiles is not None else ():
            value = percentiles.number_or_none(f"p{level}") if percentiles is not None else None
            if value is None and level == 50:
                value = told.number_or_none("median")
            if value:
                quantiles[f"{name}_p{level}"] = value * scale
    return latencies, quantiles


def _seconds(benchmark: Fields) -> float:
    duration = benchmark.number_or_none("duration")
    if duration:
        return duration
    seconds = benchmark.number("end_time") - benchmark.number("start_time")
    if seconds <= 0:
        raise benchmark.wrong("end_time", "is not after start_time")
    return seconds


def _failed(benchmark: Fields, metrics: Fields) -> int:
    """Requests that errored; those that the end of the benchmark cut off are not counted against it."""
    totals = metrics.inner_or_none("request_totals") or benchmark.inner_or_none("request_totals")
    return 0 if totals is None else totals.count_or_none("errored") or 0


def _load(benchmark: Fields) -> str:
    """The strategy, in words."""
    for above in ("config", "args"):
        kind = benchmark.deep(above, "strategy", "type_") or benchmark.deep(above, "strategy", "kind")
        if kind:
            size = next(
                (
                    value
                    for name in ("streams", "rate", "max_concurrency")
                    if (value := benchmark.deep(above, "strategy", name)) is not None
                ),
                "",
            )
            return f"{kind} {size:.3g}" if isinstance(size, int | float) else f"{kind}"
    return ""


def _model(benchmark: Fields, report_fields: Fields) -> str:
    for fields in (benchmark, report_fields):
        for path in _MODELS:
            found = fields.deep(*path)
            if isinstance(found, str) and found:
                return found
    return ""
