"""Rows of the metric table that tell how GPUs fare beside their energy, and how reading them does."""

from __future__ import annotations

from joulescope.export import readers
from joulescope.export.metric import Kind, Metric

STATUS = (
    Metric(
        "joulescope_gpu_power_instant_watts",
        Kind.GAUGE,
        "watts",
        ("gpu",),
        "Power of the last moment, 25 of every 100 ms on H100. Absent where the driver has no such field.",
        readers.of_status(lambda status: status.power_instant_watts),
    ),
    Metric(
        "joulescope_gpu_module_power_watts",
        Kind.GAUGE,
        "watts",
        ("gpu",),
        "Power of the module that the GPU is part of (Grace Hopper). It contains that of the GPU: never "
        "add them.",
        readers.of_status(lambda status: status.module_power_watts),
    ),
    Metric(
        "joulescope_gpu_memory_power_watts",
        Kind.GAUGE,
        "watts",
        ("gpu",),
        "Power of the memory of the module, where the driver tells it. Part of the module: never add them.",
        readers.of_status(lambda status: status.memory_power_watts),
    ),
    Metric(
        "joulescope_gpu_sm_clock_hertz",
        Kind.GAUGE,
        "hertz",
        ("gpu",),
        "Clock of the SMs.",
        readers.of_status(lambda status: status.sm_clock_hertz),
    ),
    Metric(
        "joulescope_gpu_memory_clock_hertz",
        Kind.GAUGE,
        "hertz",
        ("gpu",),
        "Clock of the memory.",
        readers.of_status(lambda status: status.memory_clock_hertz),
    ),
    Metric(
        "joulescope_gpu_temperature_celsius",
        Kind.GAUGE,
        "celsius",
        ("gpu",),
        "Temperature of the GPU.",
        readers.of_status(lambda status: status.temperature_celsius),
        otel_name="hw.temperature",
    ),
    Metric(
        "joulescope_gpu_throttled",
        Kind.GAUGE,
        "",
        ("gpu", "reason"),
        "1 while this reason holds the clocks back, else 0: power_cap (the power limit), thermal, "
        "hardware_slowdown, power_brake, sync_boost, application_clocks, board_limit, reliability. "
        "Several may hold at once.",
        readers.throttled,
    ),
    Metric(
        "joulescope_gpu_graphics_active_ratio",
        Kind.GAUGE,
        "ratio",
        ("gpu",),
        "Share of time in which anything ran, by the performance counters (GPM; Hopper and later). This "
        "and the other GPM figures are means of the last second.",
        readers.of_status(lambda status: status.graphics_active_ratio),
    ),
    Metric(
        "joulescope_gpu_sm_active_ratio",
        Kind.GAUGE,
        "ratio",
        ("gpu",),
        "Share of the SMs that had work (GPM).",
        readers.of_status(lambda status: status.sm_active_ratio),
    ),
    Metric(
        "joulescope_gpu_sm_occupancy_ratio",
        Kind.GAUGE,
        "ratio",
        ("gpu",),
        "Warps on the SMs, of as many as fit (GPM).",
        readers.of_status(lambda status: status.sm_occupancy_ratio),
    ),
    Metric(
        "joulescope_gpu_tensor_active_ratio",
        Kind.GAUGE,
        "ratio",
        ("gpu",),
        "Share of time in which tensor cores worked (GPM).",
        readers.of_status(lambda status: status.tensor_active_ratio),
    ),
    Metric(
        "joulescope_gpu_dram_active_ratio",
        Kind.GAUGE,
        "ratio",
        ("gpu",),
        "Memory bandwidth in use, of the highest possible (GPM).",
        readers.of_status(lambda status: status.dram_active_ratio),
    ),
    Metric(
        "joulescope_gpu_pcie_bytes_per_second",
        Kind.GAUGE,
        "bytes_per_second",
        ("gpu", "direction"),
        "Traffic over PCIe, as the GPU sees it: sent, received (GPM).",
        readers.traffic("pcie"),
    ),
    Metric(
        "joulescope_gpu_nvlink_bytes_per_second",
        Kind.GAUGE,
        "bytes_per_second",
        ("gpu", "direction"),
        "Traffic over all NVLinks, as the GPU sees it: sent, received (GPM).",
        readers.traffic("nvlink"),
    ),
    Metric(
        "joulescope_gpu_energy_tick_seconds",
        Kind.GAUGE,
        "seconds",
        ("gpu",),
        "How often the energy counter shows another figure, as measured here. Absent until it is known, "
        "and where every poll sees another figure.",
        readers.of_gpu(lambda gpu: gpu.counter_tick_seconds if gpu.up else None),
    ),
    Metric(
        "joulescope_gpu_capabilities_info",
        Kind.INFO,
        "",
        ("gpu", *readers.CAPABILITY_LABELS),
        "What the GPU and its driver can tell, asked when the sensor was opened: true, false or unknown.",
        readers.gpu_capabilities,
    ),
)
"""Read about once a second; absent where a GPU or its driver cannot tell, and while it does not answer."""

SAMPLER = (
    Metric(
        "joulescope_sampler_reads_total",
        Kind.COUNTER,
        "reads",
        (),
        "Polls of all GPUs together.",
        readers.of_sampler(lambda sampler: sampler.reads),
    ),
    Metric(
        "joulescope_sampler_missed_deadlines_total",
        Kind.COUNTER,
        "deadlines",
        (),
        "Polls that were left out because the time for the next one had come.",
        readers.of_sampler(lambda sampler: sampler.missed_deadlines),
    ),
    Metric(
        "joulescope_sampler_late_seconds_total",
        Kind.COUNTER,
        "seconds",
        (),
        "Sum over all polls of how long after its deadline each began: divide its rate by that of the reads.",
        readers.of_sampler(lambda sampler: sampler.late_seconds),
    ),
    Metric(
        "joulescope_sampler_read_seconds_total",
        Kind.COUNTER,
        "seconds",
        (),
        "Time that polls took.",
        readers.of_sampler(lambda sampler: sampler.read_seconds),
    ),
    Metric(
        "joulescope_sampler_openings_total",
        Kind.COUNTER,
        "openings",
        (),
        "Times the sensor was opened: more than one means that it was lost, or that GPUs were plugged in"
        " or out.",
        readers.of_sampler(lambda sampler: sampler.opened),
    ),
    Metric(
        "joulescope_sensor_calls_total",
        Kind.COUNTER,
        "calls",
        ("call",),
        "Calls of the GPU driver, by call.",
        readers.of_calls(lambda told: told.calls),
    ),
    Metric(
        "joulescope_sensor_call_seconds_total",
        Kind.COUNTER,
        "seconds",
        ("call",),
        "Time that the GPU driver took to answer, by call. Its calls share a lock with the submission of"
        " GPU work.",
        readers.of_calls(lambda told: told.seconds),
    ),
)
