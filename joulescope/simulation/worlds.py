"""Worlds: services whose cost is known, to try the attribution on.

The figures are *effective* ones, reached in practice, not those of a data sheet. Those of the H100 with
Llama-3.1-8B were set so that a saturated chat load reproduces the ML.ENERGY benchmark (v3, vLLM 0.11) within
10 %; ``python -m joulescope.simulation.calibration`` prints how near it comes, and a test holds it there. The
other worlds start from these figures and differ in *form*: no published figure calibrates them, they
are plausible and unlike the model that attribution fits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from joulescope.simulation.parts import (
    Change,
    Drafter,
    Dvfs,
    Experts,
    Hardware,
    Model,
    Parallel,
    Runtime,
    Thermal,
    World,
)
from joulescope.simulation.scheduler import USUAL_LIMITS, EngineLimits
from joulescope.simulation.workload import CHAT, CODE, RequestClass

H100 = Hardware(
    name="NVIDIA H100 80GB HBM3 (simulated)",
    memory_bytes=80 * 1024**3,
    bytes_per_second=2.80e12,
    flops_per_second=620e12,
    joules_per_byte=0.138e-9,
    joules_per_flop=0.70e-12,
    active_watts=165.0,
    idle_watts=100.0,
    bare_watts=69.0,
    power_limit_watts=700.0,
)
"""HBM3 3.35 TB/s and 989 TFLOP/s on paper. Idle: 69 W bare, +26..66 W with a context."""

H100_FP8 = replace(H100, flops_per_second=1050e12, joules_per_flop=0.42e-12)
"""The same computing in 8 bits."""

_LLAMA_8B_LAYERS, _LLAMA_8B_HIDDEN, _LLAMA_8B_VOCABULARY = 32, 4096, 128_256
_LLAMA_8B_PARAMETERS = 8_030_261_248
_LLAMA_8B_EMBEDDING = _LLAMA_8B_VOCABULARY * _LLAMA_8B_HIDDEN

LLAMA_3_1_8B = Model(
    name="meta-llama/Llama-3.1-8B-Instruct",
    dtype="bfloat16",
    max_model_len=32_768,
    stored_bytes=2 * _LLAMA_8B_PARAMETERS,
    weight_bytes=2.0 * (_LLAMA_8B_PARAMETERS - _LLAMA_8B_EMBEDDING),
    kv_bytes_per_token=2.0 * 2 * _LLAMA_8B_LAYERS * 8 * 128,
    flops_per_token=2.0 * (_LLAMA_8B_PARAMETERS - 2 * _LLAMA_8B_EMBEDDING),
    flops_per_token_context=4.0 * _LLAMA_8B_LAYERS * _LLAMA_8B_HIDDEN,
    flops_per_sample=2.0 * _LLAMA_8B_EMBEDDING,
)
"""Shape from the model's config: 32 layers, 8 KV heads of 128, bf16 throughout."""

LLAMA_3_1_70B_FP8 = Model(
    name="meta-llama/Llama-3.1-70B-Instruct-FP8",
    dtype="bfloat16",
    max_model_len=32_768,
    stored_bytes=70_553_706_496 + 2_101_346_304,
    weight_bytes=70_553_706_496.0,
    kv_bytes_per_token=2.0 * 2 * 80 * 8 * 128,
    flops_per_token=2.0 * (70_553_706_496 - 2 * 1_050_673_152),
    flops_per_token_context=4.0 * 80 * 8192,
    flops_per_sample=2.0 * 1_050_673_152,
    layers=80,
    hidden=8192,
)
"""80 layers of 8192, 8 KV heads of 128; linear layers of one byte a weight, embedding and head of two."""

_QWEN_EXPERT_PARAMETERS = 48 * 128 * 3 * 2048 * 768
_QWEN_OTHER_PARAMETERS = 48 * (2 * 2048 * 4096 + 2 * 2048 * 512 + 2048 * 128)
_QWEN_EMBEDDING = 151_936 * 2048

QWEN3_30B_A3B = Model(
    name="Qwen/Qwen3-30B-A3B",
    dtype="bfloat16",
    max_model_len=32_768,
    stored_bytes=2 * (_QWEN_EXPERT_PARAMETERS + _QWEN_OTHER_PARAMETERS + 2 * _QWEN_EMBEDDING),
    weight_bytes=2.0 * (_QWEN_EXPERT_PARAMETERS + _QWEN_OTHER_PARAMETERS + _QWEN_EMBEDDING),
    kv_bytes_per_token=2.0 * 2 * 48 * 4 * 128,
    flops_per_token=2.0 * (_QWEN_EXPERT_PARAMETERS * 8 / 128 + _QWEN_OTHER_PARAMETERS),
    flops_per_token_context=4.0 * 48 * 4096,
    flops_per_sample=2.0 * _QWEN_EMBEDDING,
    layers=48,
    hidden=2048,
    experts=Experts(weight_bytes=2.0 * _QWEN_EXPERT_PARAMETERS, choice_ratio=8 / 128),
)
"""48 layers of 2048, 4 KV heads of 128, 128 experts of 768 of which a token chooses 8."""

_MIXTRAL_EXPERT_PARAMETERS = 32 * 8 * 3 * 4096 * 14_336
_MIXTRAL_OTHER_PARAMETERS = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 4096 * 8)
_MIXTRAL_EMBEDDING = 32_000 * 4096

MIXTRAL_8X7B = Model(
    name="mistralai/Mixtral-8x7B-Instruct-v0.1",
    dtype="bfloat16",
    max_model_len=32_768,
    stored_bytes=2 * (_MIXTRAL_EXPERT_PARAMETERS + _MIXTRAL_OTHER_PARAMETERS + 2 * _MIXTRAL_EMBEDDING),
    weight_bytes=2.0 * (_MIXTRAL_EXPERT_PARAMETERS + _MIXTRAL_OTHER_PARAMETERS + _MIXTRAL_EMBEDDING),
    kv_bytes_per_token=2.0 * 2 * 32 * 8 * 128,
    flops_per_token=2.0 * (_MIXTRAL_EXPERT_PARAMETERS * 2 / 8 + _MIXTRAL_OTHER_PARAMETERS),
    flops_per_token_context=4.0 * 32 * 4096,
    flops_per_sample=2.0 * _MIXTRAL_EMBEDDING,
    experts=Experts(weight_bytes=2.0 * _MIXTRAL_EXPERT_PARAMETERS, choice_ratio=2 / 8),
)
"""32 layers of 4096, 8 KV heads of 128, 8 experts of 14,336 of which a token chooses 2."""

VLLM_ON_HOPPER = Runtime(
    name="vllm",
    step_seconds=1.4e-3,
    sequence_seconds=39.5e-6,
    sequence_joules=0.022,
)

H100_LLAMA_8B = World(hardware=H100, model=LLAMA_3_1_8B, runtime=VLLM_ON_HOPPER)
"""The calibrated world."""

GRAPH_SIZES = (1, 2, 4, *range(8, 257, 8), *range(272, 513, 16))
"""Sizes of steps that vLLM captures as CUDA graphs by default."""

DRAFTER_1B = Drafter(
    tokens=3, weight_bytes=2.5e9, kv_bytes_per_token=32_768.0, flops_per_token=2.4e9, launch_seconds=3e-4
)
"""A model of 1.2 billion parameters, as stands beside one of 8."""

_LONG = RequestClass("long", 0.5, 12_000, 0.6, 250, 0.5, 600)
_LATE = RequestClass("late", 0.2, 3_000, 0.7, 1500, 0.5, 4096)
_GROWING = RequestClass("growing", 0.6, 150, 0.5, 350, 0.6, 1024)
_ANSWERED = RequestClass("rag", 0.8, 250, 0.6, 120, 0.6, 512, prefix_tokens=7200, prefixes=5)


def _gpu(**figures: Any) -> World:
    """The calibrated world on another GPU."""
    return replace(H100_LLAMA_8B, hardware=replace(H100, **figures))


def _runtime(**figures: Any) -> World:
    return replace(H100_LLAMA_8B, runtime=replace(VLLM_ON_HOPPER, **figures))


def _limits(**arguments: Any) -> EngineLimits:
    return replace(USUAL_LIMITS, **arguments)


_SEVENTY = World(
    hardware=H100_FP8,
    model=LLAMA_3_1_70B_FP8,
    runtime=VLLM_ON_HOPPER,
    limits=_limits(kv_cache_tokens=240_000),
)

WORLDS: dict[str, World] = {
    "calibrated": H100_LLAMA_8B,
    # Other figures, the same form of cost: what an estimator must learn against its expectation.
    "cheap-arithmetic": _gpu(
        joules_per_flop=0.5 * H100.joules_per_flop, active_watts=1.3 * H100.active_watts
    ),
    "slow-memory": _gpu(
        joules_per_byte=1.8 * H100.joules_per_byte, bytes_per_second=0.7 * H100.bytes_per_second
    ),
    "costly-sequences": _runtime(sequence_joules=0.044, sequence_seconds=79e-6),
    "low-cap": _gpu(power_limit_watts=520.0),
    # One GPU, another form.
    # With the usual cap, power would hide what the roofline does where memory and arithmetic meet.
    "blended-roofline": _gpu(overlap_exponent=3.0, power_limit_watts=850.0),
    "dvfs": _gpu(power_limit_watts=480.0, joules_per_flop=0.85e-12, dvfs=Dvfs()),
    "moe": replace(
        H100_LLAMA_8B, model=QWEN3_30B_A3B, limits=_limits(kv_cache_tokens=140_000, max_num_seqs=128)
    ),
    "moe-uneven": replace(
        H100_LLAMA_8B,
        model=replace(
            QWEN3_30B_A3B,
            experts=Experts(
                2.0 * _QWEN_EXPERT_PARAMETERS, 8 / 128, popularity=((0.1, 4.0), (0.4, 1.0), (0.5, 0.4))
            ),
        ),
        limits=_limits(kv_cache_tokens=140_000, max_num_seqs=128),
    ),
    "speculative": replace(
        H100_LLAMA_8B, drafter=DRAFTER_1B, limits=_limits(async_scheduling=False, kv_cache_tokens=380_000)
    ),
    "cuda-graphs": _runtime(graph_sizes=GRAPH_SIZES),
    "host-bound": replace(
        _runtime(
            schedule_seconds=0.8e-3,
            prepare_seconds=1.2e-3,
            update_seconds=1.0e-3,
            host_seconds_per_sequence=25e-6,
        ),
        hardware=replace(H100, gap_watts=130.0),
        limits=_limits(async_scheduling=False),
    ),
    "thermal": _gpu(thermal=Thermal(leak_per_watt=0.08)),
    "clock-change": replace(
        H100_LLAMA_8B,
        change=Change(
            replace(
                H100,
                flops_per_second=0.65 * H100.flops_per_second,
                joules_per_flop=0.72 * H100.joules_per_flop,
                active_watts=0.85 * H100.active_watts,
            )
        ),
    ),
    "cap-change": replace(H100_LLAMA_8B, change=Change(replace(H100, power_limit_watts=420.0))),
    # Several GPUs or engines.
    "tensor-parallel-2": replace(
        _SEVENTY,
        # One GPU is a little slower and hungrier than the other, which waits for it.
        parallel=Parallel(tensor=2, slowness=(1.0, 1.04), hunger=(1.0, 1.05)),
    ),
    "moe-tensor-parallel-2": replace(
        H100_LLAMA_8B,
        model=MIXTRAL_8X7B,
        parallel=Parallel(tensor=2),
        limits=_limits(kv_cache_tokens=450_000),
    ),
    "pipeline-parallel-2": replace(
        _SEVENTY,
        parallel=Parallel(pipeline=2, slowness=(1.0, 1.06)),
        limits=_limits(kv_cache_tokens=240_000, async_scheduling=False),
    ),
    "data-parallel-dummy": replace(
        H100_LLAMA_8B,
        model=QWEN3_30B_A3B,
        parallel=Parallel(engines=2, skew=(0.8, 0.2), dummy_steps=True),
        limits=_limits(kv_cache_tokens=140_000, max_num_seqs=128),
    ),
    "two-engines": replace(
        H100_LLAMA_8B,
        parallel=Parallel(tenants=2, skew=(0.7, 0.3)),
        limits=_limits(kv_cache_tokens=190_000),
    ),
    # The calibrated GPU, another load.
    "preemption-heavy": replace(
        H100_LLAMA_8B, classes=(_GROWING, replace(CODE, weight=0.4)), limits=_limits(kv_cache_tokens=8_000)
    ),
    "prefix-heavy": replace(H100_LLAMA_8B, classes=(_ANSWERED, replace(CHAT, weight=0.2))),
    "long-context": replace(H100_LLAMA_8B, classes=(_LONG, _LATE, replace(CODE, weight=0.3))),
}
"""All known worlds by name."""
