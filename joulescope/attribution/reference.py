"""Some steps that everybody can picture, and what they should cost by a baseline."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from joulescope.attribution.baseline import Baseline, thaw
from joulescope.attribution.cost import StepColumns
from joulescope.attribution.laws import TOKENS

BATCHES, CONTEXTS, PROMPTS = (1, 8, 64, 256), (1024, 8192), (512, 4096)


@dataclass(frozen=True, slots=True)
class ReferenceStep:
    """A step of so many like requests."""

    name: str
    requests: int
    context: int
    tokens: int
    """Computed for each request."""
    joules_per_token: float
    """On all GPUs of the engine, idle waiting left out."""
    seconds: float


def reference_steps(baseline: Baseline) -> list[ReferenceStep]:
    """Decode steps of several batches and contexts, and prompts computed alone."""
    steps = [
        _step(baseline, f"decode, {batch} × {context} tokens of context", batch, context, 1)
        for context in CONTEXTS
        for batch in BATCHES
    ]
    return steps + [_step(baseline, f"prompt of {prompt} tokens", 1, 0, prompt) for prompt in PROMPTS]


def _step(baseline: Baseline, name: str, requests: int, context: int, tokens: int) -> ReferenceStep:
    columns = StepColumns(
        context=np.full(requests, context, dtype=np.int64),
        scheduled=np.full(requests, tokens, dtype=np.int64),
        sampled=np.ones(requests, dtype=np.int64),
        offsets=np.array([0, requests], dtype=np.int64),
        seconds=np.ones(1),
    )
    prices = thaw(baseline)
    joules, seconds = prices.foresee(prices.price(columns).steps[:, : TOKENS + 1])
    whole = float(joules[0]) * baseline.identity.gpu_count * baseline.scale
    return ReferenceStep(name, requests, context, tokens, whole / (requests * tokens), float(seconds[0]))
