"""What requests of a workload are in the mean, as far as steps and the KV cache are concerned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from joulescope.insight.steady.values import LengthClass

_BLOCK_TOKENS = 16
"""vLLM's default size of a block of KV cache: half a block of each request is taken and not used."""


@dataclass(frozen=True, slots=True)
class Mean:
    """Means over the requests, and over the steps that they are in."""

    output_tokens: float
    decode_steps: float
    """By request, beyond those that compute its prompt."""
    context: float
    """Tokens computed before a decode step, mean over decode steps."""
    held: float
    """Tokens of KV cache that a running request holds for itself, mean over its steps."""
    held_variance: float


def mean_of(classes: Sequence[LengthClass], tokens_per_pass: float, chunks_per_request: float) -> Mean:
    """Means over requests of these classes."""
    weight, prompt, output, cached = np.array(
        [(each.weight, each.prompt_tokens, each.output_tokens, each.cached_tokens) for each in classes]
    ).T
    weight = weight / weight.sum()
    steps = np.maximum(output - 1.0, 0.0) / tokens_per_pass
    own = np.maximum(prompt - cached, 1.0)
    decode_steps = float(weight @ steps)
    context = prompt + np.maximum(output - 2.0, 0.0) / 2.0
    by_step = weight * (steps + chunks_per_request)
    by_step = by_step / by_step.sum()
    held = own + 0.5 * output + 0.5 * _BLOCK_TOKENS
    mean_held = float(by_step @ held)
    return Mean(
        output_tokens=float(weight @ output),
        decode_steps=decode_steps,
        context=float(weight * steps @ context) / decode_steps if decode_steps else 0.0,
        held=mean_held,
        held_variance=float(by_step @ (held**2 + output**2 / 12.0)) - mean_held**2,
    )
