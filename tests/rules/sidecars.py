"""Series of a sidecar that a Prometheus scrapes, healthy unless a test says otherwise."""

from __future__ import annotations

from collections.abc import Mapping

from tests.promtool import Values, level, rising

INSTANCE = "node-1:5685"
ENGINE = "llama-0"
GPU = "GPU-1"

TARGET = f'job="joulescope", instance="{INSTANCE}"'


def series_name(metric: str, **labels: str) -> str:
    """A series of this sidecar in the notation of a selector."""
    own = "".join(f', {name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{TARGET}{own}}}"


def of_engine(metric: str, **labels: str) -> str:
    return series_name(metric, engine=ENGINE, **labels)


def of_gpu(metric: str, **labels: str) -> str:
    return series_name(metric, gpu=GPU, **labels)


EXPECTED = of_engine("joulescope_baseline_expected_energy_joules_total")
ACTUAL = of_engine("joulescope_baseline_actual_energy_joules_total")
ERROR = of_engine("joulescope_baseline_error_ratio")
LEARNED = of_engine("joulescope_baseline_learned_ratio")
STEPS = of_engine("joulescope_steps_total")
MEASURED = of_gpu("joulescope_measured_energy_joules_total")
IDLE = of_gpu("joulescope_idle_energy_joules_total")
DECODE = of_engine("joulescope_attributed_energy_joules_total", gpu=GPU, phase="decode")
PREFILL = of_engine("joulescope_attributed_energy_joules_total", gpu=GPU, phase="prefill")
TOKENS = of_engine("joulescope_generated_tokens_total")
FINISHED = of_engine("joulescope_requests_finished_total", reason="stop")
ABORTED = of_engine("joulescope_wasted_energy_joules_total", reason="abort")
PREEMPTED = of_engine("joulescope_wasted_energy_joules_total", reason="preemption")
DROPPED = of_engine("joulescope_records_dropped_total")
SENSOR_UP = of_gpu("joulescope_sensor_up")
ENGINE_UP = of_engine("joulescope_engine_up")
ENGINE_GPU = of_engine("joulescope_engine_gpu_info", gpu=GPU)
RESIDUAL = of_gpu("joulescope_conservation_residual_joules")
HOST_SENSOR_UP = series_name("joulescope_host_sensor_up", domain="package-0")
NOT_AFTER = series_name("joulescope_web_certificate_not_after_timestamp_seconds")
LAG = series_name("joulescope_attribution_lag_seconds")
SNAPSHOT = series_name("joulescope_snapshot_timestamp_seconds")
BUILD = series_name("joulescope_build_info", version="1.0")
STARTED = series_name("joulescope_start_timestamp_seconds")
WRITTEN = series_name("joulescope_exported_requests_total", exporter="request_log", outcome="written")
LOST = series_name("joulescope_exported_requests_total", exporter="request_log", outcome="dropped")
LEDGER_FAILURES = series_name("joulescope_ledger_failures_total", operation="upload")
UP = f"up{{{TARGET}}}"


def throttled(reason: str) -> str:
    return of_gpu("joulescope_gpu_throttled", reason=reason)


def unattributed(reason: str) -> str:
    return of_gpu("joulescope_unattributed_energy_joules_total", reason=reason)


def healthy(count: int, changed: Mapping[str, Values | None] | None = None) -> dict[str, Values]:
    """A GPU under one busy engine, so many samples of it: at 300 W where one is taken every 30 seconds.

    ``changed`` puts other values in place, or ``None`` where there is no such series.
    """
    rises = {
        EXPECTED: 8000,
        ACTUAL: 8000,
        STEPS: 1500,
        MEASURED: 9000,
        IDLE: 600,
        DECODE: 6000,
        PREFILL: 2400,
        TOKENS: 30_000,
        of_engine("joulescope_computed_tokens_total", kind="prefill"): 60_000,
        of_engine("joulescope_cached_tokens_total", cache="local"): 20_000,
        FINISHED: 120,
        ABORTED: 400,
        PREEMPTED: 0,
        DROPPED: 0,
        SNAPSHOT: 30,
        WRITTEN: 120,
        LOST: 0,
        LEDGER_FAILURES: 0,
        unattributed("no_engine"): 300,
        unattributed("records_lost"): 0,
    }
    levels = {
        ERROR: 0.01,
        LEARNED: 1,
        SENSOR_UP: 1,
        ENGINE_UP: 1,
        ENGINE_GPU: 1,
        of_engine("joulescope_engine_info", model="m", served_model="s", unit="token"): 1,
        RESIDUAL: 0,
        HOST_SENSOR_UP: 1,
        NOT_AFTER: 90 * 86_400,
        LAG: 0.6,
        BUILD: 1,
        STARTED: 1000,
        UP: 1,
        throttled("power_cap"): 0,
        throttled("thermal"): 0,
    }
    series: dict[str, Values] = {name: rising((rise, count)) for name, rise in rises.items()}
    series |= {name: level((value, count)) for name, value in levels.items()}
    for name, values in (changed or {}).items():
        if values is None:
            del series[name]
        else:
            series[name] = values
    return series
