"""The row of *Efficiency and waste* that tells whether the account itself is sound."""

from __future__ import annotations

from grafana.empty import NO_ENGINE, NO_GPU, NO_SIDECAR
from grafana.look import (
    BAD,
    GOOD,
    IDLE,
    PER_SECOND,
    UNATTRIBUTED,
    WARN,
    Ask,
    Placed,
    figure,
    lines,
)
from grafana.promql import (
    gpus,
    numbered,
    of_engines,
    over_range,
    rate,
    ratio,
    sidecars,
    total,
)


def account() -> list[Placed]:
    """Panels about the sidecars' own work."""
    return [*_figures(), *_courses()]


def _figures() -> list[Placed]:
    return [*_soundness(), *_own_cost()]


def _soundness() -> list[Placed]:
    small = (4, 5)
    return [
        figure(
            "Residual",
            "Measured joules minus all parts, the largest of any GPU. It is 0 to the microjoule; anything "
            "else is a bug of joulescope: please report it. "
            "Worry at once.",
            "joule",
            f"max(abs({gpus('joulescope_conservation_residual_joules')}))",
            none=NO_GPU,
            thresholds=[(None, GOOD), (0.000001, BAD)],
            size=small,
        ),
        figure(
            "Sensors that answer",
            "Share of the GPUs whose sensor answers now. Below 1 the joules of some GPUs are missing "
            "everywhere. "
            "Worry then: the log of the sidecar says why.",
            "percentunit",
            f"avg({gpus('joulescope_sensor_up')})",
            none=NO_GPU,
            thresholds=[(None, BAD), (1, GOOD)],
            decimals=0,
            size=small,
        ),
        figure(
            "Behind by",
            "Age of the newest instant up to which all joules are divided, of the slowest sidecar. A second "
            "is usual; worry above ten: a sidecar lacks CPU, or an engine is silent.",
            "s",
            f"max({sidecars('joulescope_attribution_lag_seconds')})",
            none=NO_SIDECAR,
            thresholds=[(None, GOOD), (5, WARN), (10, BAD)],
            size=small,
        ),
        figure(
            "Records lost",
            "Records that the hooks dropped in the time shown, because their queue was full. Their joules "
            "are unattributed. Worry about any.",
            "short",
            over_range("joulescope_records_dropped_total"),
            none=NO_ENGINE,
            thresholds=[(None, GOOD), (1, WARN), (1000, BAD)],
            decimals=0,
            over_range=True,
            size=small,
        ),
    ]


def _own_cost() -> list[Placed]:
    small = (4, 5)
    fraction = "process_cpu_seconds_total"
    return [
        figure(
            "Sidecar CPU",
            "Cores that the busiest sidecar takes. Worry above a half: the polling is too fast, or a scrape "
            "too large.",
            "short",
            f"max(rate({sidecars(fraction)}[$__rate_interval]) and on (cluster, job, instance) "
            f"{sidecars('joulescope_build_info')})",
            none=NO_SIDECAR,
            thresholds=[(None, GOOD), (0.5, WARN), (1, BAD)],
            decimals=3,
            size=small,
        ),
        figure(
            "Sidecar memory",
            "Resident memory of the largest sidecar. It is bounded by its settings; worry above half a "
            "gigabyte.",
            "bytes",
            f"max({sidecars('process_resident_memory_bytes')} and on (cluster, job, instance) "
            f"{sidecars('joulescope_build_info')})",
            none=NO_SIDECAR,
            thresholds=[(None, GOOD), (500e6, WARN), (1e9, BAD)],
            decimals=0,
            size=small,
        ),
    ]


def _courses() -> list[Placed]:
    compared = "joulescope_compared_{}_energy_joules_total"
    meters = ratio(rate(gpus(compared.format("driver"))), rate(gpus(compared.format("power"))))
    return [
        lines(
            "Do the two meters agree?",
            "Energy by the GPU's counter over its integrated power. Near 1 both are right; a few percent "
            "off for long means that one is wrong, or that power is not what it seems on this part. "
            "Worry about a step.",
            "short",
            [Ask(numbered(f"({meters})"), "{{instance}} GPU {{index}}")],
            none="no GPU here has both meters",
            bounds=(None, None),
            at_least=(0.95, 1.05),
            decimals=2,
            size=(12, 7),
        ),
        lines(
            "Faults, a second",
            "Failed readings, intervals thrown away as impossible, polls left out, and gaps in the engines' "
            "records. All are usually 0; worry about any that goes on.",
            PER_SECOND,
            [
                Ask(total(rate(gpus("joulescope_sensor_read_failures_total"))), "failed readings", BAD),
                Ask(
                    total(rate(gpus("joulescope_energy_intervals_rejected_total"))),
                    "impossible intervals",
                    WARN,
                ),
                Ask(
                    total(rate(sidecars("joulescope_sampler_missed_deadlines_total"))), "polls left out", IDLE
                ),
                Ask(
                    of_engines("joulescope_record_gaps_total"),
                    "gaps in records",
                    UNATTRIBUTED,
                ),
            ],
            none=NO_SIDECAR,
            at_least=(0, 1),
            size=(12, 7),
        ),
    ]
