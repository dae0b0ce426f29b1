"""Who the engine is and which device a worker drives, read from vLLM's configuration objects.

Every value is looked up tolerantly: what a version does not have stays at its default in the record.
Called in the emitter's thread, so that reading costs the engine's start-up nothing.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from typing import Any

from joulescope import __version__
from joulescope.hook.cost import cost_facts
from joulescope.hook.wire import EngineFacts, Hello, WorkerFacts

MAX_NAME_CHARACTERS = 256


def look_up(owner: Any, path: str, default: Any = None) -> Any:
    """The value at a dotted path of attributes; ``default`` if any part is missing or ``None``."""
    for name in path.split("."):
        owner = getattr(owner, name, None)
        if owner is None:
            return default
    return owner


def engine_identity(vllm_config: Any) -> tuple[str, int]:
    """(instance, data-parallel index), by which workers are joined to their engine.

    To be read while the engine is constructed: at the end of its start-up vLLM draws a new
    ``instance_id``, while the workers keep the one they were started with. With the multiprocess executor
    over several nodes each node draws one of its own; there it is the meeting point that all are given.
    """
    parallel = look_up(vllm_config, "parallel_config")
    instance_id = str(look_up(vllm_config, "instance_id", ""))
    nodes = look_up(parallel, "nnodes", 1)
    if isinstance(nodes, int) and nodes > 1:
        instance_id = f"{look_up(parallel, 'master_addr', '')}:{look_up(parallel, 'master_port', '')}"
    return instance_id, _data_parallel_index(parallel)


def engine_hello(
    vllm_config: Any, scheduler: Any, capabilities: list[str], identity: tuple[str, int]
) -> Hello:
    """The greeting of an engine's session."""
    return _hello("engine", capabilities, engine=engine_facts(vllm_config, scheduler, identity))


def worker_hello(vllm_config: Any, worker: Any, capabilities: list[str] | None = None) -> Hello:
    """The greeting of a worker's session; called in the worker, after its device is initialised."""
    return _hello("worker", capabilities or [], worker=worker_facts(vllm_config, worker))


def _hello(
    role: str, capabilities: list[str], engine: EngineFacts | None = None, worker: WorkerFacts | None = None
) -> Hello:
    return Hello(
        time_ns=time.monotonic_ns(),
        wall_ns=time.time_ns(),
        role=role,
        pid=os.getpid(),
        ppid=os.getppid(),
        hook_version=__version__,
        capabilities=capabilities,
        engine=engine,
        worker=worker,
    )


def engine_facts(vllm_config: Any, scheduler: Any, identity: tuple[str, int]) -> EngineFacts:
    """Identity, shape, limits and cost of an engine; ``scheduler`` may be ``None`` if it is gone."""
    instance_id, data_parallel_index = identity
    parallel = look_up(vllm_config, "parallel_config")
    limits = look_up(vllm_config, "scheduler_config")
    cache = look_up(vllm_config, "cache_config")
    return EngineFacts(
        instance_id=instance_id,
        data_parallel_index=data_parallel_index,
        model=_name(look_up(vllm_config, "model_config.model", "")),
        served_model=_served_model(vllm_config),
        dtype=str(look_up(vllm_config, "model_config.dtype", "")).removeprefix("torch."),
        quantization=str(look_up(vllm_config, "model_config.quantization", "")),
        vllm_version=_vllm_version(),
        tensor_parallel=look_up(parallel, "tensor_parallel_size", 1),
        pipeline_parallel=look_up(parallel, "pipeline_parallel_size", 1),
        data_parallel=look_up(parallel, "data_parallel_size", 1),
        max_num_seqs=look_up(limits, "max_num_seqs"),
        max_num_batched_tokens=look_up(limits, "max_num_batched_tokens"),
        max_model_len=look_up(vllm_config, "model_config.max_model_len"),
        kv_cache_tokens=_kv_cache_tokens(cache),
        block_size=look_up(cache, "block_size"),
        executor=_executor(look_up(parallel, "distributed_executor_backend", "uni")),
        async_scheduling=bool(look_up(limits, "async_scheduling", False)),
        scheduler_class=_class_name(scheduler),
        speculative=_speculative(look_up(vllm_config, "speculative_config")),
        prefix_caching=bool(look_up(cache, "enable_prefix_caching", False)),
        device=str(look_up(vllm_config, "device_config.device_type", "")),
        cost=cost_facts(vllm_config, _model_metrics),
    )


def _name(value: Any) -> str:
    return str(value)[:MAX_NAME_CHARACTERS]


def _served_model(vllm_config: Any) -> str:
    name = look_up(vllm_config, "model_config.served_model_name", "")
    if isinstance(name, (list, tuple)):
        name = name[0] if name else ""
    return _name(name)


def _data_parallel_index(parallel: Any) -> int:
    """Dense data-parallel engines see rank 0 of 1; only the index (0.14 and later) tells them apart."""
    index = look_up(parallel, "data_parallel_index")
    return int(look_up(parallel, "data_parallel_rank", 0) if index is None else index)


def _vllm_version() -> str:
    return str(look_up(sys.modules.get("vllm"), "__version__", ""))


def _kv_cache_tokens(cache: Any) -> int | None:
    tokens = look_up(cache, "kv_cache_size_tokens")
    if tokens is None and look_up(cache, "num_gpu_blocks") and look_up(cache, "block_size"):
        tokens = cache.num_gpu_blocks * cache.block_size
    return None if tokens is None else int(tokens)


def _executor(backend: Any) -> str:
    return backend if isinstance(backend, str) else getattr(backend, "__name__", str(backend))


def _class_name(instance: Any) -> str:
    return "" if instance is None else f"{type(instance).__module__}.{type(instance).__qualname__}"


def _speculative(config: Any) -> str:
    """``method:tokens``, empty without speculative decoding."""
    if config is None:
        return ""
    return f"{look_up(config, 'method', 'unknown')}:{look_up(config, 'num_speculative_tokens', '?')}"


def _model_metrics(vllm_config: Any) -> tuple[Any, Any]:
    """vLLM's cost model and its maker of steps. Raises ``ImportError`` before 0.14."""
    perf = importlib.import_module("vllm.v1.metrics.perf")
    return perf.ModelMetrics(vllm_config), perf.ExecutionContext.from_single_request


def worker_facts(vllm_config: Any, worker: Any) -> WorkerFacts:
    """Ranks and device of a worker whose device is initialised."""
    instance_id, data_parallel_index = engine_identity(vllm_config)
    device = getattr(worker, "device", None)
    gpu, gpu_name = _gpu_of(device)
    return WorkerFacts(
        instance_id=instance_id,
        data_parallel_index=data_parallel_index,
        rank=int(getattr(worker, "rank", 0)),
        local_rank=int(getattr(worker, "local_rank", 0)),
        tensor_parallel_rank=_rank_in("get_tp_group"),
        pipeline_parallel_rank=_rank_in("get_pp_group"),
        data_parallel_rank=_rank_in("get_dp_group"),
        device="" if device is None else str(device),
        gpu=gpu,
        gpu_name=gpu_name,
    )


def _rank_in(getter: str) -> int:
    """The worker's rank in one of its process groups; 0 where the group does not exist."""
    groups = sys.modules.get("vllm.distributed.parallel_state")
    try:
        return int(getattr(groups, getter)().rank_in_group)
    except Exception:
        return 0


def _gpu_of(device: Any) -> tuple[str, str]:
    """(UUID as the driver prints it, name) of a CUDA or ROCm device, from torch.

    Torch asks the runtime, not NVML, so no index mapping can go wrong (``CUDA_VISIBLE_DEVICES``).
    """
    torch = sys.modules.get("torch")
    if torch is None or getattr(device, "type", "") != "cuda":
        return "", ""
    try:
        properties = torch.cuda.get_device_properties(device)
        uuid, name = str(properties.uuid), str(properties.name)
    except Exception:
        return "", ""
    if look_up(torch, "version.hip") is not None:
        return _rocm_uuid(uuid), name
    return (uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}"), name


def _rocm_uuid(uuid: str) -> str:
    """``GPU-`` and 16 hexadecimal digits, as ``rocminfo`` prints them; empty if the GPU has no UUID.

    HIP fills the 16 bytes of a UUID with these digits as *text* (``"XX"`` where there is none), and torch
    prints each byte in hexadecimal once more.
    """
    try:
        digits = bytes.fromhex(uuid.replace("-", "")).rstrip(b"\0").decode("ascii")
        return f"GPU-{int(digits, 16):016x}" if len(digits) == 16 else ""
    except ValueError:
        return ""
