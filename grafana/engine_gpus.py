"""The rows of *Engine* about the GPUs that it runs on."""

from __future__ import annotations

from grafana.empty import NO_GPM
from grafana.look import (
    BAD,
    Ask,
    Placed,
    lines,
)
from grafana.promql import (
    gpus,
    numbered,
    of_their_gpus,
    rate,
)

GPU_NAME = "{{instance}} GPU {{index}}"


def of_gpus(metric: str, more: str = "") -> str:
    """Series by GPU of those on which the chosen engines run."""
    return of_their_gpus(gpus(metric, more))


def rated_of_gpus(metric: str) -> str:
    """The same for a counter."""
    return of_their_gpus(rate(gpus(metric)))


def its_gpus() -> list[Placed]:
    return [*_power_and_clocks(), *_counters()]


def _power_and_clocks() -> list[Placed]:
    def by_gpu(metric: str) -> list[Ask]:
        return [Ask(numbered(of_gpus(metric)), GPU_NAME)]

    return [
        lines(
            "GPU power and its limit",
            "Power at the last reading of each GPU, and the lowest limit among them. At the limit the clocks "
            "fall, and more joules do not bring more tokens. "
            "Worry if a GPU stays there.",
            "watt",
            [
                *by_gpu("joulescope_gpu_power_watts"),
                Ask(
                    f"min({of_gpus('joulescope_gpu_power_limit_watts')})",
                    "limit",
                    BAD,
                    style={"custom.lineStyle": {"fill": "dash", "dash": [6, 4]}, "custom.fillOpacity": 0},
                ),
            ],
            none="no GPU of this engine is measured",
            size=(8, 7),
        ),
        lines(
            "SM clock",
            "Clock of each GPU's SMs. Worry if one falls behind the others: it is held back, and with tensor "
            "parallelism all wait for it.",
            "hertz",
            by_gpu("joulescope_gpu_sm_clock_hertz"),
            none=NO_GPM,
            bounds=(None, None),
            size=(8, 7),
        ),
        lines(
            "Held back",
            "GPUs whose clocks are held back, by the reason that the driver gives. Power cap is common at "
            "full load; thermal, slowdown and power brake are for whoever looks after the machine. "
            "Worry about those at once.",
            "short",
            [Ask(f"sum by (reason) ({of_gpus('joulescope_gpu_throttled')}) > 0", "{{reason}}")],
            none="none is held back, or the driver does not tell",
            decimals=0,
            at_least=(0, 2),
            stairs=True,
            size=(8, 7),
        ),
    ]


def _counters() -> list[Placed]:
    def by_gpu(metric: str) -> list[Ask]:
        return [Ask(numbered(of_gpus(metric)), GPU_NAME)]

    return [
        lines(
            "SMs at work",
            "Share of the SMs that had work, by performance counters; without those the share of time in "
            "which any kernel ran, which says less. "
            "Worry if they rest while requests wait: the host is the brake.",
            "percentunit",
            [
                Ask(numbered(of_gpus("joulescope_gpu_sm_active_ratio")), f"SMs, {GPU_NAME}"),
                Ask(numbered(of_gpus("joulescope_gpu_sm_utilization_ratio")), f"any kernel, {GPU_NAME}"),
            ],
            none=NO_GPM,
            bounds=(0, 1),
            size=(8, 7),
        ),
        lines(
            "Memory bandwidth",
            "Share of the highest possible DRAM bandwidth. Decode of a small batch is bound by it: near 1 "
            "while the SMs rest, a larger batch costs little more. "
            "Worry if it falls at the same batch.",
            "percentunit",
            by_gpu("joulescope_gpu_dram_active_ratio"),
            none=NO_GPM,
            bounds=(0, 1),
            size=(8, 7),
        ),
        lines(
            "Temperature",
            "Temperature of each GPU. A hotter GPU leaks more: the same work costs a few percent more "
            "joules. "
            "Worry above 85 °C: clocks fall soon.",
            "celsius",
            by_gpu("joulescope_gpu_temperature_celsius"),
            none=NO_GPM,
            bounds=(None, None),
            size=(8, 7),
        ),
    ]
