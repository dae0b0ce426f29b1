"""Excerpts of what ML.ENERGY published, each with the file that it is of; figures as they stand there."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]

CODER = "Qwen/Qwen3-Coder-30B-A3B-Instruct"


def _row(limit: int, batch: float, length: float, watts: float, joules: float, rate: float) -> Document:
    return {
        "activated_params_billions": 3.0,
        "architecture": "MoE",
        "avg_batch_size": batch,
        "avg_output_len": length,
        "avg_power_watts": watts,
        "data_parallel": 1,
        "energy_per_request_joules": joules * length,
        "energy_per_token_joules": joules,
        "expert_parallel": 1,
        "gpu_model": "H100",
        "max_num_batched_tokens": None,
        "max_num_seqs": limit,
        "model_id": CODER,
        "nickname": "Qwen 3 Coder 30B A3B",
        "num_gpus": 1,
        "output_throughput_tokens_per_sec": rate,
        "tensor_parallel": 1,
        "total_params_billions": 30.0,
        "weight_precision": "bfloat16",
    }


CODER_ROWS = (
    _row(8, 7.9155, 254.3477, 497.818, 0.847396, 587.468),
    _row(16, 15.9058, 261.7959, 549.319, 0.648838, 846.619),
    _row(32, 31.8162, 229.6221, 591.305, 0.482042, 1226.667),
    _row(64, 63.7109, 257.6074, 628.891, 0.342354, 1836.960),
    _row(96, 88.8911, 252.4580, 654.028, 0.303581, 2154.376),
)
"""One H100, rounded. github.com/ml-energy/leaderboard, public/data/tasks/sourcegraph-fim.json, 2026-02."""


def leaderboard_task(rows: tuple[Document, ...] = CODER_ROWS) -> Document:
    return {
        "architecture": "llm",
        "configurations": list(rows),
        "task": "sourcegraph-fim",
        "task_display_name": "Fill-in-the-Middle (Sourcegraph)",
    }


def leaderboard_model() -> Document:
    """The same told otherwise: public/data/models/Qwen__Qwen3-Coder-30B-…__sourcegraph-fim.json."""
    common = ("activated_params_billions", "architecture", "model_id", "nickname", "weight_precision")
    layout = ("data_parallel", "expert_parallel", "tensor_parallel")
    rows = [
        {
            **{name: value for name, value in row.items() if name not in (*common, *layout)},
            "output_length_distribution": {"bins": [2.0, 42.92], "counts": [189]},
            "parallelization": {**{name: row[name] for name in layout}, "notes": ""},
        }
        for row in CODER_ROWS
    ]
    return {
        **{name: CODER_ROWS[0][name] for name in common},
        "configurations": rows,
        "task": "sourcegraph-fim",
    }


VIDEO_ROW: Document = {
    "activated_params_billions": 1.3,
    "avg_power_watts": 2144.1949457905553,
    "batch_latency_s": 39.091030955314636,
    "batch_size": 1,
    "energy_per_video_joules": 83818.79100012779,
    "fps": 15,
    "gpu_model": "H100",
    "inference_steps": 50,
    "model_id": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
    "nickname": "Wan 2.1 1.3B",
    "num_frames": 81,
    "num_gpus": 4,
    "ring_degree": 4,
    "throughput_videos_per_sec": 0.025581315600069755,
    "total_params_billions": 1.3,
    "ulysses_degree": 1,
    "video_height": 480,
    "video_width": 832,
    "weight_precision": "bfloat16",
}
"""public/data/tasks/text-to-video.json."""

MIXTRAL_2: Document = {
    "Model": "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "GPU": "NVIDIA A100-SXM4-40GB",
    "TP": 4,
    "PP": 1,
    "Energy/req (J)": 191.5924710796264,
    "Avg TPOT (s)": 0.10194832044257793,
    "Token tput (tok/s)": 1177.3778427498955,
    "Avg Output Tokens": 378.0335,
    "Avg BS (reqs)": 127.71865569272977,
    "Max BS (reqs)": 128,
}
"""github.com/ml-energy/benchmark, data/llm_text_generation/chat/A100-SXM4-40GB/…/bs128+tp4+pp1.json."""

VIDEO_2: Document = {
    "Model": "ali-vilab/i2vgen-xl",
    "GPU": "NVIDIA A100-SXM4-40GB",
    "Energy/video (J)": 16348.217100000009,
    "Batch latency (s)": 44.41898396015167,
    "Batch size": 1,
    "Denoising steps": 25,
    "Frames": 16,
}
"""The same, data/diffusion/image-to-video/A100-SXM4-40GB/ali-vilab/i2vgen-xl/bs1+steps25+frames16.json."""

TABLE_1 = (
    "model,throughput,response_length,latency,energy\n"
    "lmsys/vicuna-13B,21.611375785831733,280.739758226998,12.738298498406273,2600.83922397583\n"
    "lmsys/vicuna-7B,27.25945669782727,284.9194089993284,10.297412690598657,1531.7009963062367\n"
)
"""github.com/ml-energy/leaderboard-v2, data/A100_chat_benchmark.csv."""
