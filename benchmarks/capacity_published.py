"""Published rows (ML.ENERGY v3, vLLM 0.11, chat task) against what is foreseen from some of them.

The laws start from what is expected of the GPU by its data sheet, learn from the rows that they are given, as
from so many observed steps, and foresee the others. Lengths are not published by request: as in
:mod:`joulescope.simulation.calibration` prompts of 180 and answers of 450 tokens in the median are assumed.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from joulescope.attribution.cost import CostModel
from joulescope.attribution.laws import (
    EVEN_BYTES,
    KV_BYTES,
    LINEAR_FLOPS,
    OTHER_FLOPS,
    READ_BYTES,
    SECONDS,
    SEQUENCES,
    STEP_FIGURES,
    TOKENS,
    UNEVEN_BYTES,
)
from joulescope.attribution.prior import expectation_of
from joulescope.insight.steady import LengthClass, Service, Workload, steady_state
from joulescope.minute_model import Laws, Limits
from joulescope.model import CostFacts
from joulescope.simulation import calibration

_REPEATS = 200
"""Each row counts as so many steps: it is the mean of minutes."""


def _quantiles(median: float, sigma: float, most: float) -> list[float]:
    normal = (-1.64, -1.04, -0.67, -0.39, -0.13, 0.13, 0.39, 0.67, 1.04, 1.64)
    return [min(median * math.exp(sigma * each), most) for each in normal]


TASK = calibration.CHAT_TASK
CLASSES = tuple(
    LengthClass(1.0, prompt, output)
    for prompt in _quantiles(TASK.prompt_median, TASK.prompt_sigma, 30_000)
    for output in _quantiles(TASK.output_median, TASK.output_sigma, TASK.max_tokens)
)


def _dense(
    parameters: float, layers: int, hidden: int, width: int, vocabulary: int, each: float
) -> CostFacts:
    """Facts of a dense transformer with 8 KV heads of 128; ``width``: of all query heads; ``each``: bytes."""
    embedding = vocabulary * hidden
    return CostFacts(
        source="config",
        weight_bytes=each * (parameters - embedding),
        kv_bytes_per_token=2.0 * 2 * layers * 8 * 128,
        flops_per_token=2.0 * (parameters - 2 * embedding),
        flops_per_token_context=4.0 * layers * width,
        flops_per_sample=2.0 * embedding,
    )


LLAMA_8B = _dense(8.03e9, 32, 4096, 4096, 128_256, 2.0)
QWEN3_8B = _dense(8.19e9, 36, 4096, 4096, 151_936, 2.0)
LLAMA_405B_FP8 = _dense(405.85e9, 126, 16_384, 16_384, 128_256, 1.0)


@dataclass(frozen=True)
class Row:
    """A published steady state."""

    model: str
    cost: CostFacts
    gpu: str
    gpus: int
    batch: int
    joules_per_token: float
    watts: float
    tokens_per_second: float
    inter_token_seconds: float


ROWS = (
    Row("Llama-3.1-8B", LLAMA_8B, "H100", 1, 8, 0.455, 486.0, 1070.0, 0.0073),
    Row("Llama-3.1-8B", LLAMA_8B, "H100", 1, 64, 0.119, 610.0, 5147.0, 0.0115),
    Row("Llama-3.1-8B", LLAMA_8B, "H100", 1, 256, 0.077, 691.0, 9010.0, 0.0261),
    Row("Qwen3-8B", QWEN3_8B, "H100", 1, 8, 0.444, 427.0, 962.0, 0.0082),
    Row("Qwen3-8B", QWEN3_8B, "H100", 1, 256, 0.082, 633.0, 7719.0, 0.0314),
    Row("Llama-3.1-405B fp8", LLAMA_405B_FP8, "H100", 8, 64, 3.08, 4162.0, 1350.0, 0.0393),
    Row("Llama-3.1-8B", LLAMA_8B, "B200", 1, 64, 0.110, 617.0, 5589.0, 0.0090),
)


def _figures(row: Row) -> np.ndarray:
    """The mean step of a row, as the fit is told of steps; per GPU."""
    outputs = np.array([each.output_tokens for each in CLASSES])
    prompts = np.array([each.prompt_tokens for each in CLASSES])
    steps = outputs.mean()
    prompt_rate = row.batch / steps
    """Prompts that begin in a step."""
    context = float((outputs * (prompts + 0.5 * outputs)).sum() / outputs.sum())
    tokens = row.batch - prompt_rate + prompt_rate * prompts.mean()
    kv_tokens = (row.batch - prompt_rate) * context + prompt_rate * prompts.mean()
    positions = (row.batch - prompt_rate) * context + prompt_rate * (0.5 * prompts**2).mean()
    cost, figures = row.cost, np.zeros(STEP_FIGURES)
    figures[[SEQUENCES, TOKENS]] = row.batch, tokens
    figures[KV_BYTES] = kv_tokens * cost.kv_bytes_per_token / row.gpus
    other = positions * cost.flops_per_token_context + row.batch * cost.flops_per_sample
    figures[[OTHER_FLOPS, LINEAR_FLOPS]] = other / row.gpus, tokens * cost.flops_per_token / row.gpus
    figures[READ_BYTES] = cost.weight_bytes / row.gpus
    figures[[EVEN_BYTES, UNEVEN_BYTES]] = 0.0
    figures[SECONDS] = row.batch / row.tokens_per_second
    return figures


def laws_from(rows: Sequence[Row], like: Row) -> Laws:
    """Laws for a row's model and GPU, from what is expected of the GPU and the rows that are given."""
    expectation = expectation_of(f"NVIDIA {like.gpu} 80GB HBM3", None)
    model = CostModel(like.cost, like.gpus, expectation)
    for row in rows:
        figures = _figures(row)
        model.learn_times(np.tile(figures, (_REPEATS, 1)))
        joules = row.joules_per_token * row.batch / row.gpus
        for _ in range(_REPEATS):
            model.learn_energy(figures, joules, 0.0)
    return Laws(
        cost=like.cost,
        time_coefficients=tuple(model.time.coefficients.tolist()),
        energy_coefficients=tuple(model.energy.coefficients.tolist()),
        limit_watts=expectation.limit_watts,
        idle_watts=100.0,
    )


def foresee(laws: Laws, row: Row) -> dict[str, float]:
    """Relative errors of what the laws say of a row."""
    limits = Limits(max_num_seqs=row.batch, max_num_batched_tokens=8192)
    service = Service(laws, limits, gpu_count=row.gpus)
    operation = steady_state(Workload(CLASSES, concurrency=math.inf), service)
    parts = operation.joules_per_token
    assert parts is not None
    return {
        "joules_per_token": parts.total / row.joules_per_token - 1.0,
        "watts": operation.watts / row.watts - 1.0,
        "tokens_per_second": operation.tokens_per_second / row.tokens_per_second - 1.0,
        "inter_token": operation.inter_token_seconds / row.inter_token_seconds - 1.0,
    }


def published() -> list[dict[str, Any]]:
    """Each prediction of a row from others, and its errors."""
    llama = ROWS[:3]
    cases: list[tuple[str, Sequence[Row], Row]] = []
    for left_out in llama:
        rest = [row for row in llama if row is not left_out]
        cases.append(("batches " + " and ".join(str(row.batch) for row in rest), rest, left_out))
    cases += [("Llama-3.1-8B at 8, 64, 256", llama, row) for row in ROWS[3:5]]
    cases += [("Qwen3-8B at 8", [ROWS[3]], ROWS[4]), ("Qwen3-8B at 256", [ROWS[4]], ROWS[3])]
    cases += [("nothing: its data sheet", [], row) for row in ROWS]
    return [
        {"from": name, "model": row.model, "gpus": f"{row.gpus}×{row.gpu}", "batch": row.batch}
        | foresee(_told(given, row), row)
        for name, given, row in cases
    ]


def _told(given: Sequence[Row], row: Row) -> Laws:
    return laws_from(given, row)


if __name__ == "__main__":
    for line in published():
        print(line)
