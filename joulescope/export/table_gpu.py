"""Rows of the metric table that speak of energy and of GPUs."""

from __future__ import annotations

from joulescope.export import readers
from joulescope.export.metric import Kind, Metric
from joulescope.model import AVOIDED_REASONS, OVERHEAD_REASONS, UNATTRIBUTED_REASONS, WASTED_REASONS

ENERGY = (
    Metric(
        "joulescope_measured_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("gpu",),
        "Energy that the GPU drew, measured. Equals attributed + idle + overhead + unattributed. Where it "
        "is split among MIG instances each of them has its share, and the GPU what is left: the sum over all "
        "is what the cards drew.",
        readers.of_gpu(lambda gpu: gpu.measured_joules),
        otel_name="hw.energy",
    ),
    Metric(
        "joulescope_attributed_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("engine", "gpu", "phase"),
        "Measured energy divided among requests, by the phase they were in (prefill, decode).",
        readers.attributed,
    ),
    Metric(
        "joulescope_idle_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("gpu",),
        "Measured energy while no request ran on the GPU.",
        readers.of_gpu(lambda gpu: gpu.idle_joules),
    ),
    Metric(
        "joulescope_overhead_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("gpu", "reason"),
        "Measured energy of work that no request asked for: startup (load, warm-up, graph capture), "
        "dummy_batch (empty data-parallel steps), preemption (recompute).",
        readers.of_gpu_by(lambda gpu: gpu.overhead_joules, OVERHEAD_REASONS),
    ),
    Metric(
        "joulescope_unattributed_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("gpu", "reason"),
        "Measured energy whose cause is not known: no_engine (none connected), records_lost, "
        "engine_silent (stopped reporting), unmapped (no engine says that it uses this GPU), mig_instance "
        "(an engine uses a slice of it, whose share of the whole is not known), mig_rest (left to none by "
        "the split among MIG instances).",
        readers.of_gpu_by(lambda gpu: gpu.unattributed_joules, UNATTRIBUTED_REASONS),
    ),
    Metric(
        "joulescope_whole_gpu_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("gpu",),
        "Energy that a GPU drew whose measured energy is split among MIG instances: its own measured figure "
        "and theirs together, so do not add it to them. Absent for all other GPUs.",
        readers.of_gpu(lambda gpu: gpu.whole_joules),
    ),
    Metric(
        "joulescope_conservation_residual_joules",
        Kind.GAUGE,
        "joules",
        ("gpu",),
        "Measured minus attributed, idle, overhead and unattributed energy. Anything but 0 is a bug.",
        readers.of_gpu(lambda gpu: gpu.residual_joules),
    ),
    Metric(
        "joulescope_marginal_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("engine",),
        "Energy that would have been saved without each request, summed. A second view, not a part of the "
        "measured energy: do not add it to the other figures.",
        readers.of_engine(lambda engine: engine.marginal_joules),
    ),
    Metric(
        "joulescope_wasted_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("engine", "reason"),
        "Energy of work that came to nothing: abort, rejected_draft (speculative tokens), preemption. "
        "Already contained in attributed or overhead energy: do not add it to them.",
        readers.of_engine_by(lambda engine: engine.wasted_joules, WASTED_REASONS),
    ),
    Metric(
        "joulescope_avoided_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("engine", "reason"),
        "Energy that prompt tokens found in a cache would have cost to compute, by the model: local_cache "
        "(the engine's own prefix cache), external_cache (loaded from elsewhere). It was never drawn and is "
        "part of no other figure.",
        readers.of_engine_by(lambda engine: engine.avoided_joules, AVOIDED_REASONS),
    ),
)

GPU = (
    Metric(
        "joulescope_gpu_power_watts",
        Kind.GAUGE,
        "watts",
        ("gpu",),
        "Power at the last reading. For energy use the rate of the counters. Absent while unreadable.",
        readers.of_reading(lambda reading: reading.power_watts),
    ),
    Metric(
        "joulescope_gpu_power_limit_watts",
        Kind.GAUGE,
        "watts",
        ("gpu",),
        "Enforced power limit, as the GPU shows it. Absent while unreadable.",
        readers.of_gpu(readers.power_limit),
    ),
    Metric(
        "joulescope_gpu_calibration_ratio",
        Kind.GAUGE,
        "ratio",
        ("gpu",),
        "Factor by which the joules and watts that the GPU shows are multiplied before anything else; 1 "
        "unless configured. All energy and power here has it in it.",
        readers.of_gpu(lambda gpu: gpu.info.calibration_factor),
    ),
    Metric(
        "joulescope_gpu_meters_ratio",
        Kind.GAUGE,
        "ratio",
        ("gpu",),
        "Energy by the counter over energy by integrated power readings, in the last minute; near 1 where "
        "both meters are right. Absent while unreadable, and where one of them is missing.",
        readers.of_comparison(lambda comparison: comparison.ratio, live=True),
    ),
    Metric(
        "joulescope_compared_driver_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("gpu",),
        "Energy by the counter over all stretches in which power was known too: divide its rate by that of "
        "joulescope_compared_power_energy_joules_total for their ratio over any time.",
        readers.of_comparison(lambda comparison: comparison.counter_joules),
    ),
    Metric(
        "joulescope_compared_power_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("gpu",),
        "Energy by integrated power readings over the same stretches.",
        readers.of_comparison(lambda comparison: comparison.power_joules),
    ),
    Metric(
        "joulescope_gpu_memory_used_bytes",
        Kind.GAUGE,
        "bytes",
        ("gpu",),
        "Device memory in use at the last reading. Absent while unreadable.",
        readers.of_reading(lambda reading: reading.memory_used_bytes),
        otel_name="hw.gpu.memory.usage",
    ),
    Metric(
        "joulescope_gpu_memory_size_bytes",
        Kind.GAUGE,
        "bytes",
        ("gpu",),
        "Device memory in all.",
        readers.of_gpu(lambda gpu: gpu.info.memory_total_bytes),
        otel_name="hw.gpu.memory.limit",
    ),
    Metric(
        "joulescope_gpu_sm_utilization_ratio",
        Kind.GAUGE,
        "ratio",
        ("gpu",),
        "Share of time in which a kernel ran, 0 to 1, averaged by the driver over its own window. "
        "Absent while unreadable.",
        readers.of_reading(lambda reading: reading.sm_utilization_ratio),
        otel_name="hw.gpu.utilization",
    ),
    Metric(
        "joulescope_gpu_info",
        Kind.INFO,
        "",
        ("gpu", "name", "index", "driver_version", "energy_source", "sensor"),
        "Who a GPU is, and what its joules are measured by: the driver's energy counter (counter), the "
        "integral of its power readings (power), or, for a MIG instance, no meter: they are a share of its "
        "GPU's (mig_gpm). sensor says who reads it: this sidecar (nvml, amd) or a process inside its "
        "engine's container (engine).",
        readers.gpu_identity,
    ),
    Metric(
        "joulescope_mig_instance_info",
        Kind.INFO,
        "",
        ("gpu", "parent", "slices", "slices_total"),
        "Of which GPU a MIG instance is a part, and how large a part; only where joules are split.",
        readers.mig_identity,
    ),
    Metric(
        "joulescope_sensor_up",
        Kind.GAUGE,
        "",
        ("gpu",),
        "1 while the GPU's sensor answers, 0 after it stopped.",
        readers.of_gpu(lambda gpu: int(gpu.up)),
    ),
    Metric(
        "joulescope_sensor_read_failures_total",
        Kind.COUNTER,
        "reads",
        ("gpu",),
        "Readings of the GPU that failed.",
        readers.of_gpu(lambda gpu: gpu.read_failures),
    ),
    Metric(
        "joulescope_energy_intervals_total",
        Kind.COUNTER,
        "intervals",
        ("gpu",),
        "Intervals between two counter readings whose energy was taken into the account.",
        readers.of_gpu(lambda gpu: gpu.intervals),
    ),
    Metric(
        "joulescope_energy_intervals_rejected_total",
        Kind.COUNTER,
        "intervals",
        ("gpu",),
        "Intervals whose energy was physically impossible and so not taken into the account.",
        readers.of_gpu(lambda gpu: gpu.rejected_intervals),
    ),
    Metric(
        "joulescope_sensor_resets_total",
        Kind.COUNTER,
        "resets",
        ("gpu",),
        "Times the GPU's energy counter went back, as after a driver reload.",
        readers.of_gpu(lambda gpu: gpu.counter_resets),
    ),
    Metric(
        "joulescope_accounted_until_timestamp_seconds",
        Kind.GAUGE,
        "seconds",
        ("gpu",),
        "Wall time up to which the GPU's energy is fully divided. Absent before the first interval.",
        readers.accounted_until,
    ),
)
