"""What a step of this model costs in bytes and FLOPs, as a handful of coefficients.

vLLM's own ``ModelMetrics`` (0.14 and later) is linear in tokens, tokens × context and context for dense
models, but costs up to 0.4 ms a step. So it is probed once, with a few made-up steps, and the sidecar
multiplies. Where it is missing or does not know all parts of a model, the shapes in the config serve.

All figures are sums over the GPUs of one replica: those that see one and the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from joulescope.hook.wire import CostFacts

PROBE_CONTEXT = 1000
MANY_TOKENS = 1 << 20
"""So many tokens that a mixture of experts reads all of them; the difference of two such probes is what
a token reads, and what is left at no tokens are the weights."""

_UNGATED = {"bloom", "codegen", "falcon", "gpt2", "gpt_bigcode", "gpt_neox", "gptj", "mpt", "opt", "phi"}
"""Architectures whose feed-forward block has two matrices instead of three."""

_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_CHOSEN = ("num_experts_per_tok", "top_k_experts")

_BYTES_OF = {"float32": 4.0, "float": 4.0, "float16": 2.0, "half": 2.0, "bfloat16": 2.0}
_QUANTIZED_BYTES = {
    "awq": 0.5,
    "awq_marlin": 0.5,
    "bitsandbytes": 0.5,
    "fp8": 1.0,
    "gptq": 0.5,
    "gptq_marlin": 0.5,
    "modelopt": 1.0,
    "modelopt_fp4": 0.5,
    "mxfp4": 0.5,
}


def cost_facts(vllm_config: Any, make_metrics: Callable[[Any], tuple[Any, Any]]) -> CostFacts:
    """The coefficients from the best source there is; ``source`` is ``unknown`` if there is none.

    :param make_metrics: returns vLLM's ``ModelMetrics`` for a configuration, and a function
        ``(tokens, context, is_prefill)`` that makes the step it is asked about; may raise anything.
    """
    try:
        metrics, step = make_metrics(vllm_config)
        return from_metrics(metrics.metrics, step, _data_parallel(vllm_config), _choice_ratio(vllm_config))
    except Exception:
        pass
    try:
        return from_config(vllm_config)
    except Exception:
        return CostFacts()


def from_metrics(
    components: Iterable[Any],
    step: Callable[[int, int, bool], Any],
    data_parallel: int = 1,
    choice_ratio: float = 0.0,
) -> CostFacts:
    """Probes vLLM's per-component metrics. Raises ``ValueError`` if a part of the model is missing.

    Whole-model figures (``per_gpu=False``) are asked for: the per-GPU ones count the unembedding once
    per pipeline stage. Only the feed-forward weights are spread over data-parallel ranks as well.
    ``choice_ratio`` is the chance that a token chooses a given expert, 0 for a dense model.
    """
    parts = {part.component_type(): part for part in components}
    if not {"ffn", "unembed"} <= parts.keys() or len(parts) < 3:
        raise ValueError(f"ModelMetrics knows only {sorted(parts)} of this model")

    def flops(tokens: int, context: int, of: Iterable[Any] = parts.values()) -> float:
        return float(sum(part.get_num_flops(step(tokens, context, False), False) for part in of))

    def read(part: Any, tokens: int, context: int) -> float:
        return float(part.get_read_bytes(step(tokens, context, False), False))

    def weights(part: Any) -> float:
        once, twice = read(part, MANY_TOKENS, 0), read(part, 2 * MANY_TOKENS, 0)
        return once - (twice - once)

    def expert_weights(part: Any) -> float:
        """What a single token does not read, scaled up to all experts."""
        per_token = read(part, 2 * MANY_TOKENS, 0) - read(part, MANY_TOKENS, 0)
        alone = read(part, 1, 0) - per_token / MANY_TOKENS
        return max(weights(part) - alone, 0.0) / (1.0 - choice_ratio)

    per_context = (flops(1, 1 + PROBE_CONTEXT) - flops(1, 1)) / PROBE_CONTEXT
    per_sample = flops(1, 1, [parts["unembed"]])
    spread = {"ffn": data_parallel}
    return CostFacts(
        source="vllm",
        weight_bytes=sum(weights(part) / spread.get(kind, 1) for kind, part in parts.items()),
        kv_bytes_per_token=sum(read(p, 1, 1 + PROBE_CONTEXT) - read(p, 1, 1) for p in parts.values())
        / PROBE_CONTEXT,
        flops_per_token=flops(1, 1) - per_context - per_sample,
        flops_per_token_context=per_context,
        flops_per_sample=per_sample,
        expert_weight_bytes=expert_weights(parts["ffn"]) / data_parallel if 0.0 < choice_ratio < 1.0 else 0.0,
        expert_choice_ratio=choice_ratio,
    )


def from_config(vllm_config: Any) -> CostFacts:
    """From layer shapes: exact for plain decoders, approximate for others. Raises if they are unknown."""
    model = vllm_config.model_config
    shape = getattr(model, "hf_text_config", None) or model.hf_config
    layers, hidden = int(shape.num_hidden_layers), int(shape.hidden_size)
    heads = int(shape.num_attention_heads)
    head_dim = int(getattr(shape, "head_dim", None) or hidden // heads)
    kv_heads = int(getattr(shape, "num_key_value_heads", None) or heads)
    attention = hidden * (heads + 2 * kv_heads) * head_dim + heads * head_dim * hidden
    held, active = _feed_forward_parameters(shape, hidden)
    ratio = _choice_ratio(vllm_config)
    # What is held beyond what a token uses are the experts that it did not choose.
    routed = (held - active) / (1.0 - ratio) if 0.0 < ratio < 1.0 else 0.0
    unembed = hidden * int(shape.vocab_size)
    dtype_bytes = bytes_per_element(model.dtype)
    weight_bytes = _QUANTIZED_BYTES.get(str(getattr(model, "quantization", None)), dtype_bytes)
    return CostFacts(
        source="config",
        weight_bytes=layers * (attention + held / _data_parallel(vllm_config)) * weight_bytes
        + unembed * dtype_bytes,
        kv_bytes_per_token=layers * _kv_elements(shape, kv_heads, head_dim) * _cache_bytes(vllm_config),
        flops_per_token=2.0 * layers * (attention + active),
        flops_per_token_context=4.0 * layers * heads * head_dim,
        flops_per_sample=2.0 * unembed,
        expert_weight_bytes=layers * routed / _data_parallel(vllm_config) * weight_bytes,
        expert_choice_ratio=ratio,
    )


def _choice_ratio(vllm_config: Any) -> float:
    """Chance that a token chooses a given expert; 0 for a dense model and where the shape is not known."""
    model = getattr(vllm_config, "model_config", None)
    shape = getattr(model, "hf_text_config", None) or getattr(model, "hf_config", None)
    experts = int(_first(shape, _EXPERTS) or 0)
    return min(int(_first(shape, _CHOSEN) or 1) / experts, 1.0) if experts else 0.0


def _feed_forward_parameters(shape: Any, hidden: int) -> tuple[float, float]:
    """(held, used by one token) per layer; they differ for a mixture of experts."""
    matrices = 2 if getattr(shape, "model_type", "") in _UNGATED else 3
    inner = int(getattr(shape, "intermediate_size", None) or 4 * hidden)
    experts = int(_first(shape, _EXPERTS) or 0)
    if not experts:
        return float(matrices * hidden * inner), float(matrices * hidden * inner)
    each = matrices * hidden * int(_first(shape, ("moe_intermediate_size",)) or inner)
    shared = int(_first(shape, ("n_shared_experts", "num_shared_experts")) or 0)
    chosen = int(_first(shape, _CHOSEN) or 1)
    return float(each * (experts + shared)), float(each * (chosen + shared))


def _kv_elements(shape: Any, kv_heads: int, head_dim: int) -> int:
    """Elements that one token keeps in the KV cache of one layer."""
    latent = getattr(shape, "kv_lora_rank", None)
    if latent:  # multi-head latent attention keeps one compressed vector and the rotary part
        return int(latent) + int(getattr(shape, "qk_rope_head_dim", 0) or 0)
    return 2 * kv_heads * head_dim


def _cache_bytes(vllm_config: Any) -> float:
    name = str(getattr(vllm_config.cache_config, "cache_dtype", "auto"))
    if name.startswith(("fp8", "int8")):
        return 1.0
    return _BYTES_OF.get(name) or bytes_per_element(vllm_config.model_config.dtype)


def bytes_per_element(dtype: Any) -> float:
    """Size of a torch dtype or of its name, in bytes; 2 if it is not known."""
    size = getattr(dtype, "itemsize", None)
    if size is not None:
        return float(size)
    return _BYTES_OF.get(str(dtype).removeprefix("torch."), 2.0)


def _first(owner: Any, names: Iterable[str]) -> Any:
    return next((getattr(owner, name) for name in names if getattr(owner, name, None)), None)


def _data_parallel(vllm_config: Any) -> int:
    return max(1, int(getattr(vllm_config.parallel_config, "data_parallel_size", 1) or 1))
