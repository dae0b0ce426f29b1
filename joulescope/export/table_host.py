"""Rows of the metric table that speak of the host: CPU packages, DRAM, and CPU time.

They have names of their own, so that no sum over GPU joules takes them in.
"""

from __future__ import annotations

from joulescope.export import readers
from joulescope.export.metric import Kind, Metric
from joulescope.host_model import HOST_UNATTRIBUTED_REASONS

_DOMAIN = ("domain",)

HOST = (
    Metric(
        "joulescope_host_measured_energy_joules_total",
        Kind.COUNTER,
        "joules",
        _DOMAIN,
        "Energy that a part of the host drew, measured: package-N, or dram-N for the memory beside it. "
        "Domains are disjoint. Equals attributed + other + idle + unattributed; no GPU is in it.",
        readers.of_domain(lambda domain: domain.measured_joules),
    ),
    Metric(
        "joulescope_host_attributed_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("engine", "domain"),
        "Measured energy above idle by the engine's share of busy CPU time. Absent for an engine none of "
        "whose processes is visible.",
        readers.host_attributed,
    ),
    Metric(
        "joulescope_host_other_energy_joules_total",
        Kind.COUNTER,
        "joules",
        _DOMAIN,
        "Measured energy above idle by the share of all other processes, the API server among them.",
        readers.of_domain(lambda domain: domain.other_joules),
    ),
    Metric(
        "joulescope_host_idle_energy_joules_total",
        Kind.COUNTER,
        "joules",
        _DOMAIN,
        "Measured energy that is drawn whatever runs: idle power times time.",
        readers.of_domain(lambda domain: domain.idle_joules),
    ),
    Metric(
        "joulescope_host_unattributed_energy_joules_total",
        Kind.COUNTER,
        "joules",
        ("domain", "reason"),
        "Measured energy whose cause is not known: idle_unknown (the host was never seen quiet), "
        "cpu_time_unknown (not readable), processes_unseen (an engine's processes are not visible to the "
        "sidecar).",
        readers.of_domain_by(lambda domain: domain.unattributed_joules, HOST_UNATTRIBUTED_REASONS),
    ),
    Metric(
        "joulescope_host_conservation_residual_joules",
        Kind.GAUGE,
        "joules",
        _DOMAIN,
        "Measured minus attributed, other, idle and unattributed energy. Anything but 0 is a bug.",
        readers.of_domain(lambda domain: domain.residual_joules),
    ),
    Metric(
        "joulescope_host_idle_power_watts",
        Kind.GAUGE,
        "watts",
        _DOMAIN,
        "Power that counts as idle: the least of any ten seconds of the last day. Absent until the host was "
        "seen with CPUs busy for a tenth of the time at most.",
        readers.of_domain(lambda domain: domain.idle_power_watts),
    ),
    Metric(
        "joulescope_host_busy_cpu_seconds_total",
        Kind.COUNTER,
        "seconds",
        (),
        "CPU time that all processes of the host spent while the sidecar looked.",
        readers.of_host(lambda host: host.busy_cpu_seconds),
    ),
    Metric(
        "joulescope_host_engine_cpu_seconds_total",
        Kind.COUNTER,
        "seconds",
        ("engine",),
        "CPU time that the engine's processes and their descendants spent, as far as they are visible.",
        readers.of_host_by_engine(lambda host: host.engine_cpu_seconds),
    ),
    Metric(
        "joulescope_host_engine_visible",
        Kind.GAUGE,
        "",
        ("engine",),
        "1 if all processes of a connected engine are visible to the sidecar, 0 if not: it then needs to "
        "share their pid namespace. Absent while no host energy is read.",
        readers.of_host_by_engine(
            lambda host: {name: int(all) for name, all in host.engines_visible.items()}
        ),
    ),
    Metric(
        "joulescope_host_info",
        Kind.INFO,
        "",
        ("domain", "zone", "sensor"),
        "Where the joules of a domain come from: the operating system's name for it, and the kind of sensor.",
        readers.host_identity,
    ),
    Metric(
        "joulescope_host_sensor_up",
        Kind.GAUGE,
        "",
        _DOMAIN,
        "1 while the domain's counter is read, 0 after it could not be.",
        readers.of_domain(lambda domain: int(domain.up)),
    ),
    Metric(
        "joulescope_host_sensor_read_failures_total",
        Kind.COUNTER,
        "reads",
        _DOMAIN,
        "Readings of the domain that failed.",
        readers.of_domain(lambda domain: domain.read_failures),
    ),
    Metric(
        "joulescope_host_energy_intervals_total",
        Kind.COUNTER,
        "intervals",
        _DOMAIN,
        "Intervals between two readings whose energy was taken into the account.",
        readers.of_domain(lambda domain: domain.intervals),
    ),
    Metric(
        "joulescope_host_energy_intervals_rejected_total",
        Kind.COUNTER,
        "intervals",
        _DOMAIN,
        "Intervals not taken in: their energy was impossible, or they were so long that the counter may have "
        "gone round unseen.",
        readers.of_domain(lambda domain: domain.rejected_intervals),
    ),
    Metric(
        "joulescope_host_sensor_wraps_total",
        Kind.COUNTER,
        "wraps",
        _DOMAIN,
        "Times the counter reached its range and began again; nothing is lost by it.",
        readers.of_domain(lambda domain: domain.wraps),
    ),
    Metric(
        "joulescope_host_sensor_resets_total",
        Kind.COUNTER,
        "resets",
        _DOMAIN,
        "Times the counter went back for another reason; the energy of that interval is lost.",
        readers.of_domain(lambda domain: domain.resets),
    ),
)
