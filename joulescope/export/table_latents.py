"""Rows of the metric table that lie between the load of an engine and its joules."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from joulescope.diagnosis_model import STEP_BOUNDS, STEP_PARTS, STEP_READS, LatentTotals
from joulescope.export.metric import Kind, Metric, Point, Read
from joulescope.label_model import clean
from joulescope.model import Snapshot


def _of(value: Callable[[LatentTotals], float]) -> Read:
    def read(snapshot: Snapshot) -> Iterator[Point]:
        for each in snapshot.latents:
            yield Point((clean(each.engine),), value(each))

    return read


def _by(values: Callable[[LatentTotals], Mapping[str, float]], known: tuple[str, ...]) -> Read:
    def read(snapshot: Snapshot) -> Iterator[Point]:
        for each in snapshot.latents:
            for name in known:
                yield Point((clean(each.engine), name), values(each).get(name, 0.0))

    return read


LATENTS = (
    Metric(
        "joulescope_step_seconds_total",
        Kind.COUNTER,
        "seconds",
        ("engine", "bound"),
        "GPU seconds of steps, by what set their pace: memory, compute (arithmetic) or power (the limit), by "
        "the time model; and host: GPUs waited between steps, with requests running. Summed over the "
        "engine's GPUs. Some seconds older than other figures, as all that follow.",
        _by(lambda each: each.bound_seconds, STEP_BOUNDS),
    ),
    Metric(
        "joulescope_step_read_bytes_total",
        Kind.COUNTER,
        "bytes",
        ("engine", "source"),
        "Bytes that steps read, by the cost facts of the model: weights and kv_cache. Of all GPUs of the "
        "engine together.",
        _by(lambda each: each.read_bytes, STEP_READS),
    ),
    Metric(
        "joulescope_step_flops_total",
        Kind.COUNTER,
        "FLOPs",
        ("engine",),
        "Floating-point operations of steps, likewise: its rate by that of the bytes is the arithmetic "
        "intensity, in FLOPs a byte.",
        _of(lambda each: each.flops),
    ),
    Metric(
        "joulescope_modelled_step_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("engine", "part"),
        "Modelled energy of steps by what it is for: static (power that is paid for their time, whatever "
        "they do), weights and kv_cache (reading them), compute (arithmetic), sequences (each request in a "
        "step). Another view of attributed and overhead energy, by the energy model of the moment: do not "
        "add it to them.",
        _by(lambda each: each.modelled_joules, STEP_PARTS),
    ),
    Metric(
        "joulescope_kv_cache_used_seconds_total",
        Kind.COUNTER,
        "seconds",
        ("engine",),
        "Usage of the KV cache, 0 to 1, times seconds: by the seconds in which it was known the mean usage, "
        "which a gauge that is read now and then only guesses.",
        _of(lambda each: each.kv_usage_seconds),
    ),
    Metric(
        "joulescope_kv_cache_known_seconds_total",
        Kind.COUNTER,
        "seconds",
        ("engine",),
        "Seconds in which the usage of the KV cache was known.",
        _of(lambda each: each.kv_known_seconds),
    ),
    Metric(
        "joulescope_kv_cache_full_seconds_total",
        Kind.COUNTER,
        "seconds",
        ("engine",),
        "Seconds in which the KV cache was full enough to hold requests back: usage of at least 0.95.",
        _of(lambda each: each.kv_full_seconds),
    ),
)
