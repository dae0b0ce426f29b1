"""Simulated worlds that are compared: one model in two precisions, GPUs of two generations."""

from __future__ import annotations

from dataclasses import replace

from joulescope.simulation.parts import Parallel
from joulescope.simulation.worlds import H100_FP8, LLAMA_3_1_70B_FP8, WORLDS

FP8 = replace(WORLDS["tensor-parallel-2"], parallel=Parallel())
"""Llama 3.1 70B in 8 bits on one H100."""
A100_LIKE = replace(
    H100_FP8,
    name="NVIDIA A100-SXM4-80GB (simulated)",
    bytes_per_second=1.6e12,
    flops_per_second=240e12,
    joules_per_byte=0.16e-9,
    joules_per_flop=1.1e-12,
    active_watts=110.0,
    idle_watts=60.0,
    power_limit_watts=400.0,
)
"""Slower memory and arithmetic at a lower power; its figures are plausible and calibrated by nothing."""
BF16 = replace(
    LLAMA_3_1_70B_FP8,
    name="meta-llama/Llama-3.1-70B-Instruct",
    stored_bytes=2 * LLAMA_3_1_70B_FP8.stored_bytes,
    weight_bytes=2 * LLAMA_3_1_70B_FP8.weight_bytes,
)
ON_TWO = Parallel(tensor=2)
