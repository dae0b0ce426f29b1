"""Results as other benchmarks would write them: their fields, with figures made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Document = dict[str, Any]

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def mlenergy_run(
    root: Path,
    *,
    limit: int = 64,
    running: float | None = None,
    model: str = LLAMA,
    gpu: str = "H100",
    gpus: int = 1,
    joules: float = 0.12,
    seed: int = 0,
    **changes: Any,
) -> Path:
    """``results.json`` of version 3 in the folders of its published data, ``prometheus.json`` beside."""
    settings = f"num_gpus+{gpus}+max_num_seqs+{limit}+num_request_repeats+1+seed+{seed}"
    folder = root / "llm/h100/current/run/llm/lm-arena-chat/results" / model / gpu / settings
    folder.mkdir(parents=True)
    measured = {str(number): 60_000.0 / gpus for number in range(gpus)}
    energy = {
        "time": 120.0,
        "gpu_energy": measured,
        "cpu_energy": None,
        "dram_energy": None,
        "soc_energy": None,
    }
    document = {
        "date": "20260131-120000",
        "endpoint_type": "openai-chat",
        "model_id": model,
        "num_prompts": 1024,
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": None,
        "duration": 120.0,
        "completed": 1024,
        "steady_state_duration": 100.0,
        "steady_state_energy": joules * 500_000.0,
        "steady_state_energy_per_token": joules,
        "total_input_tokens": 204_800,
        "total_output_tokens": 450_560,
        "request_throughput": 8.53,
        "output_throughput": 3754.7,
        "total_token_throughput": 5461.3,
        "steady_state_measurement": energy,
        "entire_benchmark_measurement": energy,
        "mean_ttft_ms": 95.0,
        "median_ttft_ms": 80.0,
        "std_ttft_ms": 10.0,
        "p50_ttft_ms": 80.0,
        "p90_ttft_ms": 150.0,
        "p95_ttft_ms": 170.0,
        "p99_ttft_ms": 220.0,
        "mean_itl_ms": 99.0,
        "median_itl_ms": 0.0,
        "mean_e2el_ms": 5200.0,
        "median_e2el_ms": 5000.0,
        "results": [
            {
                "input_len": 200,
                "output_len": 5,
                "latency": 0.5,
                "ttft": 0.08,
                "itl": [0.012] * 4,
                "error": "",
                "energy": 1.0,
            },
            # Three tokens that came at once, after one that never did.
            {
                "input_len": 200,
                "output_len": 5,
                "latency": 0.5,
                "ttft": 0.08,
                "itl": [0.0, 0.036, 0.0, 0.0],
                "error": "",
            },
            {
                "input_len": 200,
                "output_len": 0,
                "latency": 0.0,
                "ttft": 0.0,
                "itl": [9.0],
                "error": "timeout",
            },
        ],
        **changes,
    }
    path = folder / "results.json"
    path.write_text(json.dumps({name: value for name, value in document.items() if value != "absent"}))
    stats = {"vllm:num_requests_running": limit * 0.97 if running is None else running}
    (folder / "prometheus.json").write_text(json.dumps({"steady_state_stats": stats, "collected": []}))
    return path


def mlenergy_images(root: Path, *, batch: int = 4, gpus: int = 2, numbered: bool = False) -> Path:
    """``results.json`` of the diffusion benchmark: three batches of images."""
    folder = (
        root / "diffusion/h100/current/run/diffusion/text-to-image/org/painter" / f"batch-{batch}+steps-20"
    )
    folder.mkdir(parents=True)
    iterations = [
        {"time": 2.0 + 0.1 * number, "gpu_energy": {str(gpu): 500.0 + 10 * number for gpu in range(gpus)}}
        for number in range(3)
    ]
    document: Document = {
        "date": "20260131-120000",
        "model_id": "org/painter",
        "batch_size": batch,
        "num_iterations": 3,
        "height": 1024,
        "width": 1024,
        "inference_steps": 20,
        "total_images": 3 * batch,
    }
    if numbered:
        document.update({f"iter{number}_energy_measurement": each for number, each in enumerate(iterations)})
    else:
        document["iteration_energy_measurements"] = iterations
    path = folder / "results.json"
    path.write_text(json.dumps(document))
    return path


def leaderboard_3() -> Document:
    """``public/data/tasks/lm-arena-chat.json`` of the leaderboard: two batches of a model, one broken row."""

    def row(limit: int, joules: float, rate: float, itl: float, **changes: Any) -> Document:
        return {
            "model_id": LLAMA,
            "nickname": "Llama 3.1 8B",
            "gpu_model": "H100",
            "num_gpus": 1,
            "total_params_billions": 8.0,
            "activated_params_billions": 8.0,
            "weight_precision": "bfloat16",
            "architecture": "Dense",
            "max_num_seqs": limit,
            "tensor_parallel": 1,
            "expert_parallel": 1,
            "data_parallel": 1,
            "energy_per_token_joules": joules,
            "energy_per_request_joules": joules * 500,
            "avg_power_watts": joules * rate,
            "avg_output_len": 500.0,
            "median_itl_ms": itl,
            "p90_itl_ms": 1.5 * itl,
            "p95_itl_ms": 2 * itl,
            "p99_itl_ms": 3 * itl,
            "output_throughput_tokens_per_sec": rate,
            "avg_batch_size": 0.97 * limit,
            **changes,
        }

    rows = [row(8, 0.46, 1_000.0, 7.5), row(64, 0.12, 5_000.0, 11.0), row(128, 0.1, 7_000.0, 16.0)]
    del rows[2]["avg_power_watts"]
    return {
        "task": "lm-arena-chat",
        "task_display_name": "LM Arena Chat",
        "architecture": "llm",
        "configurations": rows,
    }


def client_2() -> Document:
    """``…+results.json`` of version 2."""
    return {
        "model": LLAMA,
        "backend": "vllm",
        "gpu_model": "NVIDIA A100-SXM4-40GB",
        "num_gpus": 1,
        "num_nodes": 1,
        "max_num_seqs": 32,
        "power_limit": 400,
        "request_rate": "inf",
        "num_requests": 500,
        "num_failures": 10,
        "system_prompt": "",
        "total_runtime": 200.0,
        "requests_per_second": 2.45,
        "total_prompt_tokens": 98_000,
        "total_completion_tokens": 196_000,
        "latency_per_request": 9.0,
        "latency_per_output_token": 0.025,
        "client_side_total_energy": 70_000.0,
        "client_side_average_power": 350.0,
        "results": [],
    }


def stats_2() -> Document:
    """``…+stats.json`` beside it: two iterations in the steady window, then nobody waits any more."""
    return {
        "steady_state": [{"time": 100.0, "energy": {"0": 36_000.0}}],
        "num_waiting_sys": [3, 2, 1, 1, 0, 0],
        "num_running_sys": [32, 32, 32, 30, 10, 1],
        "num_generation_tokens_iter": [30_000, 30_000, 30_000, 10_000, 10, 1],
        "time_per_output_tokens_iter": [[0.02], [0.02], [], [], [], []],
    }


LANGUAGE_2 = {
    "Model": LLAMA,
    "GPU": "NVIDIA A100-SXM4-40GB",
    "TP": 2,
    "PP": 1,
    "Energy/req (J)": 150.0,
    "Avg TPOT (s)": 0.025,
    "Token tput (tok/s)": 1_200.0,
    "Avg Output Tokens": 400.0,
    "Avg BS (reqs)": 31.0,
    "Max BS (reqs)": 32,
}
"""One file of the leaderboard of version 2."""

IMAGES_2 = {
    "Model": "org/painter",
    "GPU": "NVIDIA A100-SXM4-40GB",
    "Energy/image (J)": 800.0,
    "Batch latency (s)": 5.0,
    "Batch size": 4,
    "Denoising steps": 25,
}

TABLE_1 = (
    "model,batch_size,throughput,response_length,latency,energy\n"
    "lmsys/vicuna-7B,1,30.0,280.0,9.3,1400.0\n"
    "lmsys/vicuna-7B,2,35.0,210.0,14.0,1050.0\n"
    "broken,1,,210.0,14.0,1050.0\n"
)


def vllm_serve(**changes: Any) -> Document:
    """What ``vllm bench serve --save-result --metadata gpu=H100 gpu_count=2`` writes."""
    document = {
        "date": "20260131-120000",
        "endpoint_type": "vllm",
        "backend": "vllm",
        "label": None,
        "model_id": f"{LLAMA}-FP8",
        "tokenizer_id": LLAMA,
        "num_prompts": 500,
        "gpu": "NVIDIA H100 80GB HBM3",
        "gpu_count": "2",
        "request_rate": "inf",
        "burstiness": 1.0,
        "max_concurrency": 32,
        "duration": 100.0,
        "completed": 490,
        "failed": 10,
        "total_input_tokens": 98_000,
        "total_output_tokens": 196_000,
        "request_throughput": 4.9,
        "request_goodput": None,
        "output_throughput": 1_960.0,
        "total_token_throughput": 2_940.0,
        "max_output_tokens_per_s": 2_400.0,
        "max_concurrent_requests": 40,
        "mean_ttft_ms": 60.0,
        "median_ttft_ms": 55.0,
        "std_ttft_ms": 9.0,
        "p99_ttft_ms": 110.0,
        "mean_tpot_ms": 15.9,
        "median_tpot_ms": 15.8,
        "std_tpot_ms": 1.0,
        "p99_tpot_ms": 19.0,
        "mean_itl_ms": 16.0,
        "median_itl_ms": 15.5,
        "std_itl_ms": 4.0,
        "p99_itl_ms": 40.0,
        **changes,
    }
    return {name: value for name, value in document.items() if value != "absent"}


def distribution(mean: float, count: int) -> Document:
    """A ``DistributionSummary`` of GuideLLM."""
    levels = {"p001": 0.5, "p01": 0.6, "p05": 0.7, "p10": 0.8, "p25": 0.9, "p50": 1.0, "p75": 1.2}
    levels |= {"p90": 1.5, "p95": 1.8, "p99": 2.5, "p999": 3.0}
    return {
        "mean": mean,
        "median": mean,
        "mode": mean,
        "variance": 1.0,
        "std_dev": 1.0,
        "min": 0.5 * mean,
        "max": 3.0 * mean,
        "count": count,
        "total_sum": mean * count,
        "percentiles": {name: mean * factor for name, factor in levels.items()},
    }


def guidellm_benchmark(concurrency: float, itl_ms: float, *, count: int = 300, **changes: Any) -> Document:
    """One benchmark of a report, as all schemas have it."""

    def by_status(mean: float) -> Document:
        nothing = distribution(0.0, 0)
        return {"successful": distribution(mean, count), "incomplete": nothing, "errored": nothing}

    return {
        "type_": "generative_benchmark",
        "metrics": {
            "request_totals": {"successful": count, "incomplete": 4, "errored": 3, "total": count + 7},
            "requests_per_second": by_status(count / 60.0),
            "request_concurrency": by_status(concurrency),
            "request_latency": by_status(0.05 + itl_ms / 1e3 * 399),
            "prompt_token_count": by_status(200.0),
            "output_token_count": by_status(400.0),
            "time_to_first_token_ms": by_status(50.0),
            "time_per_output_token_ms": by_status(itl_ms),
            "inter_token_latency_ms": by_status(itl_ms),
            "output_tokens_per_second": by_status(400.0 * count / 60.0),
            "tokens_per_second": by_status(600.0 * count / 60.0),
        },
        "start_time": 1_764_000_000.0,
        "end_time": 1_764_000_060.0,
        "duration": 60.0,
        **changes,
    }


def guidellm_unversioned() -> Document:
    """A report of GuideLLM 0.2 and 0.3."""
    strategies = ({"type_": "concurrent", "streams": 8}, {"type_": "constant", "rate": 6.0})
    return {
        "benchmarks": [
            guidellm_benchmark(
                concurrency,
                itl,
                run_id="r",
                args={"strategy": strategy, "strategy_index": place},
                worker={"type_": "generative_requests_worker", "backend_model": LLAMA},
                request_totals={"successful": 300, "incomplete": 4, "errored": 3, "total": 307},
            )
            for place, (concurrency, itl, strategy) in enumerate(
                ((8.0, 8.0, strategies[0]), (40.0, 12.0, strategies[1]))
            )
        ]
    }


def guidellm_schema(version: int) -> Document:
    """A report of schema 1 (GuideLLM 0.5, 0.6) or 2 (0.7)."""
    metadata = {
        "version": version,
        "guidellm_version": f"0.{version + 4}.0",
        "python_version": "3.12",
        "platform": "x",
    }
    config = {
        "strategy": {"type_": "concurrent", "streams": 16},
        "backend": {"type_": "openai_http", "model": LLAMA},
        "run_index": 0,
    }
    args = {"target": "http://localhost:8000", "model": LLAMA} if version == 1 else {}
    benchmark = guidellm_benchmark(16.0, 9.0, config=config, scheduler_metrics={}, requests={})
    return {"metadata": metadata, "args": args, "benchmarks": [benchmark]}
