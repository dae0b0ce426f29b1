"""What the hello says of an engine, a worker, and the cost of a model."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from joulescope.hook.cost import bytes_per_element, cost_facts, from_config, from_metrics
from joulescope.hook.facts import engine_facts, engine_identity, look_up, worker_facts
from joulescope.hook.wire import CostFacts, EngineFacts, WorkerFacts

# The shape of Llama-3-8B.
LLAMA = {
    "model_type": "llama",
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
}
LAYER = 4096 * (32 + 16) * 128 + 4096 * 4096 + 3 * 4096 * 14336
UNEMBED = 4096 * 128256


def config_of(shape: dict[str, Any], **more: Any) -> SimpleNamespace:
    model = SimpleNamespace(hf_text_config=SimpleNamespace(**shape), dtype="torch.bfloat16", **more)
    return SimpleNamespace(
        model_config=model,
        cache_config=SimpleNamespace(cache_dtype="auto"),
        parallel_config=SimpleNamespace(data_parallel_size=1),
    )


def test_config_of_a_dense_model() -> None:
    """The figures of Llama-3-8B follow from its shape."""
    cost = from_config(config_of(LLAMA))
    assert cost.source == "config"
    assert cost.weight_bytes == 2 * (32 * LAYER + UNEMBED)
    assert cost.kv_bytes_per_token == 131072
    assert cost.flops_per_token == 2 * 32 * LAYER
    assert cost.flops_per_token_context == 4 * 32 * 4096
    assert cost.flops_per_sample == 2 * UNEMBED


def test_config_of_a_mixture_of_experts() -> None:
    """All experts are held, but a token is computed by its own and the shared ones only."""
    shape = {**LLAMA, "num_local_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1}
    dense, mixture = from_config(config_of(LLAMA)), from_config(config_of(shape))
    expert = 3 * 4096 * 14336
    assert mixture.weight_bytes - dense.weight_bytes == 2 * 32 * 8 * expert
    assert mixture.flops_per_token - dense.flops_per_token == 2 * 32 * 2 * expert
    assert mixture.expert_weight_bytes == 2 * 32 * 8 * expert
    assert mixture.expert_choice_ratio == 2 / 8
    assert (dense.expert_weight_bytes, dense.expert_choice_ratio) == (0, 0)


def test_config_with_quantisation_and_compressed_cache() -> None:
    """Quantised weights, an 8-bit cache and a latent cache need fewer bytes."""
    quantised = config_of(LLAMA, quantization="fp8")
    quantised.cache_config.cache_dtype = "fp8_e4m3"
    cost = from_config(quantised)
    assert cost.weight_bytes == 32 * LAYER + 2 * UNEMBED
    assert cost.kv_bytes_per_token == 131072 / 2
    latent = from_config(config_of({**LLAMA, "kv_lora_rank": 512, "qk_rope_head_dim": 64}))
    assert latent.kv_bytes_per_token == 32 * (512 + 64) * 2


class Part:
    """A component of vLLM's ModelMetrics, reduced to a linear law with a saturating weight read."""

    def __init__(
        self,
        kind: str,
        *,
        weights: float,
        flops: tuple[float, float, float] = (0, 0, 0),
        read: tuple[float, float] = (0, 0),
        weights_by_token: float | None = None,
    ) -> None:
        self.kind, self.weights, self.flops, self.read = kind, weights, flops, read
        self.weights_by_token = weights if weights_by_token is None else weights_by_token

    def component_type(self) -> str:
        return self.kind

    def get_num_flops(self, step: tuple[int, int, bool], per_gpu: bool) -> float:
        assert not per_gpu
        tokens, context, _ = step
        per_token, per_pair, per_sample = self.flops
        return per_token * tokens + per_pair * tokens * context + per_sample * tokens

    def get_read_bytes(self, step: tuple[int, int, bool], per_gpu: bool) -> float:
        assert not per_gpu
        tokens, context, _ = step
        weights = min(self.weights_by_token * tokens, self.weights)
        return weights + self.read[0] * tokens + self.read[1] * context


PARTS = [
    Part("attn", weights=100, flops=(10, 3, 0), read=(7, 5)),
    Part("ffn", weights=400, flops=(20, 0, 0), read=(9, 0)),
    Part("unembed", weights=50, flops=(0, 0, 4), read=(2, 0)),
]


def step(tokens: int, context: int, is_prefill: bool) -> tuple[int, int, bool]:
    return tokens, context, is_prefill


def test_probing_recovers_the_law() -> None:
    """The coefficients of a linear cost model are found exactly."""
    assert from_metrics(PARTS, step) == CostFacts(
        source="vllm",
        weight_bytes=550,
        kv_bytes_per_token=5,
        flops_per_token=30,
        flops_per_token_context=3,
        flops_per_sample=4,
    )


def test_probing_counts_all_experts() -> None:
    """A mixture of experts counts with all its weights, and with its share of them under data parallelism."""
    experts = Part("ffn", weights=4000, weights_by_token=10, flops=(20, 0, 0), read=(9, 0))
    parts = [PARTS[0], experts, PARTS[2]]
    assert from_metrics(parts, step).weight_bytes == 100 + 4000 + 50
    assert from_metrics(parts, step, data_parallel=4).weight_bytes == 100 + 1000 + 50


def test_probing_finds_the_routed_experts() -> None:
    """What one token leaves unread are the experts that it did not choose."""
    # 8 experts of 400 bytes, 2 of them chosen, and 160 bytes that every token reads.
    experts = Part("ffn", weights=160 + 3200, weights_by_token=160 + 800, flops=(20, 0, 0), read=(9, 0))
    cost = from_metrics([PARTS[0], experts, PARTS[2]], step, choice_ratio=2 / 8)
    assert cost.expert_weight_bytes == pytest.approx(3200)
    assert cost.expert_choice_ratio == 2 / 8


def test_incomplete_metrics() -> None:
    """A model of which vLLM's cost model does not know a part is computed from its config."""
    config = config_of(LLAMA)
    metrics = SimpleNamespace(metrics=PARTS[:2])
    assert cost_facts(config, lambda _: (metrics, step)).source == "config"


def test_no_source_of_cost() -> None:
    """Without any source the cost is unknown, not zero by accident and not an error."""

    def fail(_: object) -> tuple[Any, Any]:
        raise ImportError

    assert cost_facts(SimpleNamespace(), fail) == CostFacts(source="unknown")


@pytest.mark.parametrize(
    ("dtype", "size"),
    [(SimpleNamespace(itemsize=1), 1), ("torch.float32", 4), ("bfloat16", 2), ("strange", 2)],
)
def test_element_size(dtype: object, size: int) -> None:
    """Sizes come from torch's dtype or from its name."""
    assert bytes_per_element(dtype) == size


def engine_config() -> SimpleNamespace:
    return SimpleNamespace(
        instance_id="17",
        model_config=SimpleNamespace(
            model="/models/llama", served_model_name=["llama", "other"], dtype="torch.bfloat16",
            quantization=None, max_model_len=8192,
        ),
        parallel_config=SimpleNamespace(
            data_parallel_index=3, data_parallel_rank=0, tensor_parallel_size=4, pipeline_parallel_size=2,
            distributed_executor_backend="mp",
        ),
        scheduler_config=SimpleNamespace(
            max_num_seqs=256, max_num_batched_tokens=8192, async_scheduling=True
        ),
        cache_config=SimpleNamespace(num_gpu_blocks=100, block_size=16, enable_prefix_caching=True),
        speculative_config=SimpleNamespace(method="eagle", num_speculative_tokens=3),
        device_config=SimpleNamespace(device_type="cuda"),
    )  # fmt: skip


def test_engine_facts() -> None:
    """The facts are the configuration's; what a version does not have is derived or left out."""
    config = engine_config()
    facts = engine_facts(config, SimpleNamespace(), engine_identity(config))
    assert facts == EngineFacts(
        instance_id="17",
        data_parallel_index=3,
        model="/models/llama",
        served_model="llama",
        dtype="bfloat16",
        vllm_version=facts.vllm_version,
        tensor_parallel=4,
        pipeline_parallel=2,
        max_num_seqs=256,
        max_num_batched_tokens=8192,
        max_model_len=8192,
        kv_cache_tokens=1600,
        block_size=16,
        executor="mp",
        async_scheduling=True,
        scheduler_class="types.SimpleNamespace",
        speculative="eagle:3",
        prefix_caching=True,
        device="cuda",
    )


def test_identity_before_0_14() -> None:
    """Without a data-parallel index the rank has to do."""
    config = SimpleNamespace(parallel_config=SimpleNamespace(data_parallel_rank=2))
    assert engine_identity(config) == ("", 2)


def test_facts_of_nothing() -> None:
    """An empty configuration gives default facts, not an error."""
    facts = engine_facts(None, None, ("", 0))
    assert facts == EngineFacts(executor="uni", vllm_version=facts.vllm_version)
    assert worker_facts(None, None) == WorkerFacts()


def test_executor_class() -> None:
    """An executor that is given as a class is told by its name."""
    config = engine_config()
    config.parallel_config.distributed_executor_backend = dict
    assert engine_facts(config, None, ("", 0)).executor == "dict"


def test_worker_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The GPU's UUID comes from torch and gets the driver's prefix; ranks come from vLLM's groups."""
    properties = SimpleNamespace(uuid="0aa1b5f2-1", name="NVIDIA H100")
    torch = ModuleType("torch")
    torch.cuda = SimpleNamespace(get_device_properties=lambda device: properties)  # type: ignore[attr-defined]
    groups = ModuleType("groups")
    groups.get_tp_group = lambda: SimpleNamespace(rank_in_group=1)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "vllm.distributed.parallel_state", groups)

    class Device(SimpleNamespace):
        def __str__(self) -> str:
            return "cuda:1"

    facts = worker_facts(engine_config(), SimpleNamespace(rank=5, local_rank=1, device=Device(type="cuda")))
    assert facts == WorkerFacts(
        instance_id="17",
        data_parallel_index=3,
        rank=5,
        local_rank=1,
        tensor_parallel_rank=1,
        device="cuda:1",
        gpu="GPU-0aa1b5f2-1",
        gpu_name="NVIDIA H100",
    )


@pytest.mark.parametrize(
    ("shown", "gpu"),
    [
        ("39643462-6136-6531-6232-633364346535", "GPU-9d4ba6e1b2c3d4e5"),
        ("39443442-4136-4531-4232-433344344535", "GPU-9d4ba6e1b2c3d4e5"),
        ("58580000-0000-0000-0000-000000000000", ""),
        ("9d4ba6e1-b2c3-d4e5-0000-000000000000", ""),
        ("None", ""),
    ],
    ids=["as rocminfo prints it", "in capitals", "a GPU without one", "bytes that are no text", "no UUID"],
)
def test_worker_on_rocm(monkeypatch: pytest.MonkeyPatch, shown: str, gpu: str) -> None:
    """What torch prints of HIP's UUID becomes what rocminfo and the AMD sensor call the GPU, or nothing."""
    torch = ModuleType("torch")
    torch.version = SimpleNamespace(hip="7.0.51831")  # type: ignore[attr-defined]
    properties = SimpleNamespace(uuid=shown, name="AMD Instinct MI300X")
    torch.cuda = SimpleNamespace(get_device_properties=lambda device: properties)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    facts = worker_facts(engine_config(), SimpleNamespace(device=SimpleNamespace(type="cuda")))
    assert (facts.gpu, facts.gpu_name) == (gpu, "AMD Instinct MI300X")


def test_worker_whose_gpu_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """If torch cannot tell the GPU it stays unnamed."""
    monkeypatch.setitem(sys.modules, "torch", ModuleType("torch"))
    worker = SimpleNamespace(rank=0, local_rank=0, device=SimpleNamespace(type="cuda"))
    assert worker_facts(engine_config(), worker).gpu == ""


def test_look_up() -> None:
    """A dotted path gives the value, or the default at the first thing that is missing."""
    owner = SimpleNamespace(a=SimpleNamespace(b=7, c=None))
    assert look_up(owner, "a.b") == 7
    assert look_up(owner, "a.c", "x") == look_up(owner, "a.z.y", "x") == look_up(None, "a", "x") == "x"
