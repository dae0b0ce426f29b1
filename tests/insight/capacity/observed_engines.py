"""Engines as they were observed, made of the laws of the calibrated world instead of a run."""

from __future__ import annotations

from dataclasses import replace

from joulescope.insight.capacity.observed import Fared, Observed, Seen, Span
from joulescope.insight.steady import LengthClass, Workload
from joulescope.minute_model import Kind
from joulescope.simulation.worlds import H100_LLAMA_8B
from tests.insight.steady.services import service_of

CHAT = (LengthClass(3.0, 200.0, 300.0), LengthClass(1.0, 1500.0, 100.0, cached_tokens=1000.0))

_TIME_STD, _ENERGY_STD = 0.03, 0.05


def _diagonal(count: int, std: float) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(std**2 if row == column else 0.0 for column in range(count)) for row in range(count))


def observed_engine(*, rate: float = 6.0, batch: Span | None = None, dtype: str = "bfloat16") -> Observed:
    """An engine that was seen at batches of 8 to 32."""
    service = service_of(H100_LLAMA_8B)
    laws = replace(
        service.laws,
        time_covariance=_diagonal(5, _TIME_STD),
        energy_covariance=_diagonal(5, _ENERGY_STD),
    )
    return Observed(
        kind=Kind(engine="llama-0", model="org/llama", dtype=dtype, gpu_name="NVIDIA H100 80GB HBM3"),
        workload=Workload(CHAT, arrivals_per_second=rate),
        service=replace(service, laws=laws),
        seen=Seen(
            batch=batch or Span(8.0, 32.0),
            prompt_tokens=Span(100.0, 2000.0),
            power_limit_watts=Span(700.0, 700.0),
            memory_bound=True,
            compute_bound=False,
            power_bound=False,
        ),
        fared=Fared(
            seconds=240.0,
            batch=15.0,
            running=15.0,
            joules_per_token=0.35,
            busy_joules_per_token=0.34,
            watts=520.0,
            tokens_per_second=1500.0,
            requests_per_second=rate,
            step_seconds=0.0095,
            kv_usage_ratio=0.02,
            first_token_seconds=0.03,
        ),
        minutes=4,
        scale=1.0,
    )
