"""Other GPUs in number, another precision, another power limit: the laws scaled by physics, and what that
assumes.

Bytes and FLOPs of a GPU follow from the model's and from how many share it; what talking between GPUs takes,
how fast 8-bit arithmetic runs and what falls with the clock at a power limit are not in the data of an engine
that never did it. They are assumptions here, each with two ends, and the figures of both ends are stated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from joulescope.errors import PlanError
from joulescope.insight.capacity.forecast import Setting
from joulescope.insight.capacity.observed import Observed
from joulescope.insight.steady import Clocks, Link, Service, Workload, steady_state
from joulescope.minute_model import Laws

PRECISIONS = {"bf16": 2.0, "fp16": 2.0, "fp8": 1.0, "int8": 1.0}
"""Bytes of a weight."""

REDUCE_SECONDS, LINK_BYTES_PER_SECOND, LINK_JOULES_PER_BYTE = 12e-6, 250e9, 0.06e-9
"""Of one all-reduce, two in each layer, over NVLink: latency, rate that is reached, joules (estimates)."""

_LINK_ENDS = (0.5, 2.5)
"""How far talking may be from that, as factors."""

_ACTIVATION_BYTES = 2.0

_NARROWEST_HEAD = 32.0
"""Of a layer's width, at least: tensor parallelism gives each GPU one attention head or more."""

EIGHT_BIT = {"flops": 1.7, "joules": 0.6}
"""Arithmetic in 8 bits against 16: how much faster kernels reach (2 on data sheets), joules of a FLOP."""

PUBLISHED_8_BIT = ((12.0, 1.30), (32.0, 1.0), (128.0, 0.89))
"""Joules per token in FP8 against BF16 at the same batch: medians of ML.ENERGY v3 at batches 8..16, 17..64
and 65..256. At small batches it cost more, which bytes and FLOPs alone do not explain."""

VOLTAGE_FLOOR, _VOLTAGE_FLOORS = 0.55, (0.3, 0.8)
"""Voltage towards the lowest clocks as a part of the full one, and how far it may be from that."""


@dataclass(frozen=True, slots=True)
class WhatIf:
    """What is to be otherwise. ``None``: as it is."""

    gpus: int | None = None
    precision: str | None = None
    power_limit_watts: float | None = None
    """Of each GPU."""

    @property
    def name(self) -> str:
        parts = []
        if self.gpus is not None:
            parts.append(f"gpus={self.gpus}")
        if self.precision is not None:
            parts.append(f"precision={self.precision}")
        if self.power_limit_watts is not None:
            parts.append(f"power-limit={self.power_limit_watts:g}W")
        return ",".join(parts)


def as_it_is(observed: Observed) -> Setting:
    """The service as it was observed."""
    return Setting("as observed", observed.service)


def setting_of(what_if: WhatIf, observed: Observed) -> Setting:
    """The observed service with something otherwise.

    Raises:
        PlanError: it cannot be: weights that do not fit, a limit below what the GPU draws at rest.
    """
    setting = Setting(what_if.name, observed.service)
    if what_if.precision is not None:
        setting = _with_precision(setting, what_if.precision, observed)
    if what_if.gpus is not None:
        setting = _with_gpus(setting, what_if.gpus)
    if what_if.power_limit_watts is not None:
        setting = _with_limit(setting, what_if.power_limit_watts, observed)
    return setting


def _all(setting: Setting, change: Callable[[Service], Service]) -> tuple[Service, ...]:
    return tuple(change(variant) for variant in setting.variants)


# ------------------------------------------------------------------------------------------- number of GPUs


def _with_gpus(setting: Setting, gpus: int) -> Setting:
    now = setting.service.gpu_count
    if gpus == now:
        return setting
    if setting.service.pipeline_parallel > 1:
        raise PlanError(
            "gpus: a pipeline over another number of GPUs is not foreseen; take tensor parallelism"
        )
    _kv_tokens(setting.service, gpus)
    most = int(shape_of(setting.service.laws)[1] / _NARROWEST_HEAD)
    if gpus > max(most, now):
        raise PlanError(
            f"gpus: {gpus} GPUs cannot share each layer: by its FLOPs the model has no more than {most} "
            "attention heads. Take several engines instead, or fewer GPUs"
        )
    ends = tuple(_spread(setting.service, gpus, factor) for factor in _LINK_ENDS)
    others = _all(setting, lambda service: _spread(service, gpus, 1.0))
    told = (
        f"{gpus} GPUs share bytes, FLOPs and joules of sequences evenly (tensor parallel); launches, and the "
        "host's time by sequence, stay",
        f"two all-reduces a layer take {REDUCE_SECONDS * 1e6:g} µs each, and "
        f"{LINK_BYTES_PER_SECOND / 1e9:g} GB/s and {LINK_JOULES_PER_BYTE * 1e9:g} nJ/byte for what "
        f"they move; the interval holds {_LINK_ENDS[0]:g} to {_LINK_ENDS[1]:g} times that",
        "layers and their width are inferred from FLOPs per token and per position",
        "memory that the weights leave on each GPU is KV cache, as it is now",
    )
    return replace(
        setting,
        service=_spread(setting.service, gpus, 1.0),
        variants=(*others, *ends),
        assumptions=(*setting.assumptions, *told),
        speculative=True,
    )


def _spread(service: Service, gpus: int, factor: float) -> Service:
    """The service on so many GPUs, talking at ``factor`` times what is assumed."""
    now, laws = service.gpu_count, service.laws
    before, after = (_link(laws, count, factor) for count in (now, gpus))
    byte, kv_byte, flop, sequence, active = laws.energy_coefficients
    return replace(
        service,
        gpu_count=gpus,
        laws=replace(laws, energy_coefficients=(byte, kv_byte, flop, sequence * now / gpus, active)),
        limits=replace(service.limits, kv_cache_tokens=_kv_tokens(service, gpus)),
        link=Link(
            # What the present number of GPUs takes is in the fitted launches already.
            max(after.seconds_per_step - before.seconds_per_step, -0.5 * laws.time_coefficients[0]),
            after.seconds_per_token - before.seconds_per_token,
            after.joules_per_token - before.joules_per_token,
        ),
    )


def _link(laws: Laws, gpus: int, factor: float) -> Link:
    if gpus == 1:
        return Link()
    layers, width = shape_of(laws)
    rounds = 2.0 * layers
    moved = rounds * width * _ACTIVATION_BYTES * 2.0 * (gpus - 1) / gpus
    return Link(
        factor * rounds * REDUCE_SECONDS,
        factor * moved / LINK_BYTES_PER_SECOND,
        factor * moved * LINK_JOULES_PER_BYTE,
    )


def shape_of(laws: Laws) -> tuple[float, float]:
    """Layers and their width, about, of a model of which only FLOPs are told.

    A position costs 4 · layers · width FLOPs; a token 24 · layers · width² in a dense transformer whose
    layers have some twelve times width² weights.
    """
    cost = laws.cost
    if cost.flops_per_token_context <= 0.0 or cost.flops_per_token <= 0.0:
        raise PlanError(
            "gpus: the engine does not tell FLOPs per token, so that what GPUs exchange is not known"
        )
    width = cost.flops_per_token / (6.0 * cost.flops_per_token_context)
    return cost.flops_per_token_context / (4.0 * width), width


def _kv_tokens(service: Service, gpus: int) -> int | None:
    """KV cache on so many GPUs, if each keeps as much memory for weights and cache as now."""
    tokens, cost = service.limits.kv_cache_tokens, service.laws.cost
    if tokens is None or cost.kv_bytes_per_token <= 0.0:
        return None
    room = (cost.weight_bytes + tokens * cost.kv_bytes_per_token) * gpus / service.gpu_count
    left = int((room - cost.weight_bytes) / cost.kv_bytes_per_token)
    if left <= 0:
        raise PlanError(
            f"gpus: the weights ({cost.weight_bytes / 1e9:.0f} GB) do not fit on {gpus} of these GPUs, which "
            f"keep {room / gpus / 1e9:.0f} GB each for weights and KV cache"
        )
    return left


# ------------------------------------------------------------------------------------------------- precision


def _with_precision(setting: Setting, precision: str, observed: Observed) -> Setting:
    now = present_precision(observed)
    before, after = PRECISIONS[now], PRECISIONS[precision]
    if before == after:
        return setting
    base, eight = setting.service, after < before
    told = [
        f"weights have {after:g} bytes instead of {before:g}, activations and KV cache stay as they are",
        "memory that the weights free is KV cache" if eight else "the weights take memory from the KV cache",
        f"8-bit arithmetic runs {EIGHT_BIT['flops']:g} times as fast as in 16 bits, at "
        f"{EIGHT_BIT['joules']:g} of the joules; the interval holds no gain to the data sheet's two",
    ]
    ceiling = None
    if eight:
        told.append(
            "at the same batch FP8 was measured elsewhere to cost +30 % at batches 8..16, as much at 17..64, "
            "and −11 % at 65..256 (medians); the upper end is at least that"
        )
        ceiling = _published(base)
    scaled = [
        _weighed(base, after / before, (rate, joules) if eight else (1.0 / rate, 1.0 / joules))
        for rate, joules in ((EIGHT_BIT["flops"], EIGHT_BIT["joules"]), (1.0, 1.0), (2.0, 0.5))
    ]
    return replace(
        setting,
        service=scaled[0],
        variants=tuple(scaled[1:]),
        ceiling=ceiling,
        assumptions=(*setting.assumptions, *told),
        speculative=True,
    )


def present_precision(observed: Observed) -> str:
    """In how many bits the engine keeps its weights, by what it says of itself.

    Raises:
        PlanError: it says nothing of the kind.
    """
    kind = observed.kind
    told = f"{kind.quantization} {kind.dtype}".lower()
    for names, precision in ((("fp8", "f8", "e4m3"), "fp8"), (("int8", "w8a8"), "int8")):
        if any(name in told for name in names):
            return precision
    if kind.quantization:
        raise PlanError(
            f"precision: weights quantized as {kind.quantization} are not foreseen in another precision"
        )
    if kind.dtype in ("bfloat16", "float16", "half"):
        return "bf16" if kind.dtype == "bfloat16" else "fp16"
    raise PlanError(f"precision: the engine's own is not known (dtype {kind.dtype or 'untold'})")


def _weighed(service: Service, ratio: float, arithmetic: tuple[float, float]) -> Service:
    """With weights of ``ratio`` times the bytes, and arithmetic so much faster at that part of the joules."""
    rate, joules = arithmetic
    laws, cost = service.laws, service.laws.cost
    times, energies = list(laws.time_coefficients), list(laws.energy_coefficients)
    times[4] /= rate
    energies[2] *= joules
    tokens = service.limits.kv_cache_tokens
    if tokens is not None and cost.kv_bytes_per_token > 0.0:
        tokens += int((1.0 - ratio) * cost.weight_bytes / cost.kv_bytes_per_token)
        if tokens <= 0:
            raise PlanError("precision: the larger weights leave no memory for a KV cache on these GPUs")
    return replace(
        service,
        laws=replace(
            laws,
            cost=replace(
                cost,
                weight_bytes=ratio * cost.weight_bytes,
                expert_weight_bytes=ratio * cost.expert_weight_bytes,
            ),
            time_coefficients=tuple(times),
            energy_coefficients=tuple(energies),
        ),
        limits=replace(service.limits, kv_cache_tokens=tokens),
    )


def _published(base: Service) -> Callable[[Workload], float]:
    """Joules per token by the published ratios at the batch that the base service has under a load."""
    batches, ratios = (np.array(column) for column in zip(*PUBLISHED_8_BIT, strict=True))

    def ceiling(workload: Workload) -> float:
        operation = steady_state(workload, base)
        parts = operation.joules_per_token
        at = math.log(max(operation.batch, 1.0))
        return float(np.interp(at, np.log(batches), ratios)) * (
            parts.total if parts is not None else math.nan
        )

    return ceiling


# ---------------------------------------------------------------------------------------------- power limit


def _with_limit(setting: Setting, watts: float, observed: Observed) -> Setting:
    laws = setting.service.laws
    active = laws.energy_coefficients[4]
    if watts < 1.2 * active:
        raise PlanError(
            f"power-limit: {watts:g} W is hardly more than the {active:.0f} W that a GPU draws before it "
            "computes anything; nothing is known of such limits"
        )
    seen = observed.seen.power_limit_watts
    known = seen is not None and 0.98 * seen.low <= watts <= 1.02 * seen.high
    floors = " to ".join(f"{each:g}" for each in _VOLTAGE_FLOORS)
    told = (
        "where steps would draw more, clocks and voltage fall: arithmetic takes longer, and joules of "
        "arithmetic and sequences, and static power, go with the square of the voltage; memory is as fast",
        f"voltage falls towards {VOLTAGE_FLOOR:g} of the full one with the clock (the interval holds "
        f"{floors}, and steps that only take longer, at the same joules)",
    )
    clocked = [_limited(setting.service, watts, floor) for floor in (VOLTAGE_FLOOR, *_VOLTAGE_FLOORS, None)]
    return replace(
        setting,
        service=clocked[0],
        variants=(*_all(setting, lambda service: _limited(service, watts, VOLTAGE_FLOOR)), *clocked[1:]),
        assumptions=(*setting.assumptions, *told),
        speculative=setting.speculative or not known,
    )


def _limited(service: Service, watts: float, voltage_floor: float | None) -> Service:
    clocks = None if voltage_floor is None else Clocks(voltage_floor)
    return replace(service, laws=replace(service.laws, limit_watts=watts), clocks=clocks)
