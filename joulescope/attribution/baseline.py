"""What the work of one kind of engine used to cost, frozen: the yardstick of an efficiency index.

Joules per token fall with the batch, rise with the context and differ by what clients ask for, so that they
say nothing of a regression. A baseline holds the coefficients of the cost model instead
(:mod:`joulescope.attribution.cost`), and says what *the same steps* should have cost::

    index = measured joules of the steps / joules that the baseline expects of them

1 is as usual; a change of load or mix leaves it there, a slower kernel, lower clocks or a slower host do not.
See ``docs/baselines.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from joulescope.attribution.cost import CostModel
from joulescope.attribution.fit import StepFit
from joulescope.attribution.prior import expectation_of
from joulescope.attribution.requests import SAY_LITTLE
from joulescope.attribution.uncertainty import ATTRIBUTED, PRIOR_RATIO
from joulescope.model import METHOD, METHOD_VERSION, CostFacts, EngineInfo

Floats = NDArray[np.float64]

PINNED, LEARNED = "pinned", "learned"
"""Where a baseline comes from: an operator chose it, or the sidecar learned it by itself."""

_SAME_FACTS = 0.01
"""Cost facts may differ by this much, relative, and still speak of the same model."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What must be the same for two engines to be compared: the same model, cut alike, on the same GPUs.

    The version of the software is not in it: that an upgrade made the same work dearer is what is looked for.
    """

    model: str
    dtype: str
    quantization: str
    tensor_parallel: int
    pipeline_parallel: int
    gpu_name: str
    gpu_count: int


@dataclass(frozen=True, slots=True)
class CacheUse:
    """How much of the prompts of one class of lengths was found in a cache."""

    up_to_tokens: int
    """Longest prompt of the class."""
    requests: int
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """A frozen cost model of one kind of engine, with what else its work used to take."""

    name: str
    identity: Identity
    software: str
    version: str
    """Of the software, such as vLLM's."""
    created_wall_seconds: float
    busy_seconds: float
    """GPU time with steps from which it was learned, per GPU."""
    cost: CostFacts
    time_coefficients: tuple[float, ...]
    """Seconds: launch, by sequence, byte of weights, byte of KV cache, FLOP (and of even, uneven experts)."""
    energy_coefficients: tuple[float, ...]
    """Joules: by byte of weights, byte of KV cache, FLOP, sequence; static watts."""
    time_covariance: tuple[tuple[float, ...], ...]
    """Relative: of each coefficient as a part of its value, by the noise and the misses that there really are
    (:data:`joulescope.attribution.uncertainty.ATTRIBUTED`)."""
    energy_covariance: tuple[tuple[float, ...], ...]
    unevenness: float
    limit_watts: float
    idle_watts: float
    wait_seconds: tuple[float, float]
    """What a step, and each sequence in it, made the GPU wait for the host."""
    scale: float
    """Measured by expected joules while it was checked, after its coefficients were fixed."""
    scatter: float
    """By how much minutes differed from that, relative (standard deviation)."""
    cache: tuple[CacheUse, ...] = ()
    source: str = LEARNED
    method: str = METHOD
    method_version: str = METHOD_VERSION


def identity_of(info: EngineInfo, gpu_name: str) -> Identity:
    """What an engine is compared by."""
    return Identity(
        model=info.model or info.served_model,
        dtype=info.dtype,
        quantization=info.quantization,
        tensor_parallel=info.tensor_parallel,
        pipeline_parallel=info.pipeline_parallel,
        gpu_name=gpu_name,
        gpu_count=info.gpu_count,
    )


def same_work(left: CostFacts, right: CostFacts) -> bool:
    """Whether two sets of cost facts mean the same model: by other facts the same steps look like others."""
    names = (
        "weight_bytes",
        "kv_bytes_per_token",
        "flops_per_token",
        "flops_per_token_context",
        "flops_per_sample",
        "expert_weight_bytes",
        "expert_choice_ratio",
    )
    pairs = ((getattr(left, name), getattr(right, name)) for name in names)
    return all(abs(one - two) <= _SAME_FACTS * max(abs(one), abs(two)) for one, two in pairs)


def says_enough(cost: CostFacts) -> bool:
    """Whether an engine says what its steps take. By what says less, each kind of request has a cost of its
    own, so that another mix looks like a regression."""
    return cost.source not in SAY_LITTLE


def freeze(
    fit: StepFit, identity: Identity, info: EngineInfo, *, wall_seconds: float, name: str = ""
) -> Baseline:
    """What a fit knows now. What is checked afterwards (scale, scatter, waits, cache) is filled in later."""
    return Baseline(
        name=name,
        identity=identity,
        software=info.software,
        version=info.vllm_version,
        created_wall_seconds=wall_seconds,
        busy_seconds=0.0,
        cost=info.cost,
        time_coefficients=tuple(fit.time.coefficients.tolist()),
        energy_coefficients=tuple(fit.energy.coefficients.tolist()),
        time_covariance=_rows(fit.time.covariance_where(ATTRIBUTED.coefficients, PRIOR_RATIO)),
        energy_covariance=_rows(fit.energy.covariance_where(ATTRIBUTED.coefficients, PRIOR_RATIO)),
        unevenness=fit.unevenness,
        limit_watts=fit.expectation.limit_watts,
        idle_watts=0.0,
        wait_seconds=(0.0, 0.0),
        scale=1.0,
        scatter=0.0,
    )


def thaw(baseline: Baseline) -> CostModel:
    """A cost model with the baseline's coefficients: it foresees, and is not to be taught."""
    identity = baseline.identity
    expectation = replace(
        expectation_of(identity.gpu_name, baseline.limit_watts), limit_watts=baseline.limit_watts
    )
    model = CostModel(baseline.cost, identity.gpu_count, expectation)
    model.restore(baseline.time_coefficients, baseline.energy_coefficients, baseline.unevenness)
    return model


def calibrated(baseline: Baseline) -> Baseline:
    """A baseline whose covariances are those of the noise that the fit is told, which is more than there is,
    as surely as it was used: all of them scaled, what the prior holds too."""
    ratio = ATTRIBUTED.coefficients**2
    return replace(
        baseline,
        time_covariance=_rows(ratio * matrix_of(baseline.time_covariance)),
        energy_covariance=_rows(ratio * matrix_of(baseline.energy_covariance)),
    )


def _rows(matrix: Floats) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in matrix.tolist())


def matrix_of(rows: Sequence[Sequence[float]]) -> Floats:
    """A covariance as an array."""
    return np.array(rows, dtype=np.float64)
