"""*Engine*: what one engine costs now, whether that is as usual, and what it does."""

from __future__ import annotations

from grafana.frame import Board, Row
from grafana.look import (
    ACCENT,
    BAD,
    DECODE,
    FAINT,
    GOOD,
    INDEX_STEPS,
    OVERHEAD,
    PART_COLOURS,
    PER_SECOND,
    PREFILL,
    TOKENS_PER_SECOND,
    UNATTRIBUTED,
    WARN,
    Ask,
    Column,
    Placed,
    figure,
    grid,
    lines,
)
from grafana.promql import (
    engines,
    gpus,
    index,
    joules_per_token,
    numbered,
    of_models,
    of_their_gpus,
    rate,
    ratio,
    tokens,
    total,
    watts,
)

NO_ENGINE = "no engine of this choice"
NO_TOKENS = "no tokens now"
NO_BASELINE = "no baseline yet"
NO_GPM = "this GPU or driver does not tell"
PHASES = 'phase="{}"'
GPU_NAME = "{{instance}} GPU {{index}}"


def of_gpus(metric: str, more: str = "") -> str:
    """Series by GPU of those on which the chosen engines run."""
    return of_their_gpus(gpus(metric, more))


def rated_of_gpus(metric: str) -> str:
    """The same for a counter."""
    return of_their_gpus(rate(gpus(metric)))


def phase_watts(phase: str) -> str:
    """Watts of the chosen engines' requests in one phase."""
    joules = engines("joulescope_attributed_energy_joules_total", PHASES.format(phase))
    return total(of_models(rate(joules)))


def mean(metric: str) -> str:
    """Sum over the chosen engines of a gauge."""
    return total(of_models(engines(metric)))


COMPUTED = total(of_models(rate(engines("joulescope_computed_tokens_total"))))
STEPS = total(of_models(rate(engines("joulescope_steps_total"))))
EXPECTED = f"({joules_per_token()}) / ({index()})"
ERROR = f"max({of_models(engines('joulescope_baseline_error_ratio'))})"


def _glance() -> list[Placed]:
    return [
        figure(
            "Energy per output token",
            "Attributed joules over output tokens, now. It moves with batch size and prompt length; look at "
            "the index beside it before you blame a change. "
            "Worry if both rise.",
            "joule",
            joules_per_token(),
            none=NO_TOKENS,
        ),
        figure(
            "Index against baseline",
            "What the work cost over what the same work should cost by the baseline: 1 is as usual, 1.2 is "
            "a fifth more. Mix and load are taken out. Worry above 1.1: a slower kernel, a lost prefix "
            "cache, a GPU that is held back.",
            "short",
            index(),
            none=NO_BASELINE,
            thresholds=INDEX_STEPS,
            decimals=2,
        ),
        figure(
            "One more decode token",
            "Marginal joules of one more token in the batch as it runs now: what a further request would "
            "add. Far below the mean above it, there is room in the batch; near it, the GPU is full. "
            "Worry if it is near it all day: there is no room left.",
            "joule",
            f"max({of_models(engines('joulescope_marginal_energy_per_output_token_joules'))})",
            none="nothing is decoded now",
            colour=DECODE,
        ),
        figure(
            "Power for requests",
            "Watts that the chosen engines' requests cause, on all their GPUs. "
            "Worry if it stays high while tokens fall.",
            "watt",
            watts(),
            none=NO_ENGINE,
            colour=DECODE,
        ),
        figure(
            "Output tokens",
            "Tokens that come out, a second: the load at which the joules beside it are spent. Worry if it "
            "falls while requests wait.",
            TOKENS_PER_SECOND,
            tokens(),
            none=NO_ENGINE,
        ),
        figure(
            "KV cache in use",
            "Share of the KV-cache blocks in use, of the fullest engine. Above 90 % requests are soon "
            "pushed out and computed again, which costs joules twice. "
            "Worry then.",
            "percentunit",
            f"max({of_models(engines('joulescope_kv_cache_usage_ratio'))})",
            none="not connected",
            thresholds=[(None, GOOD), (0.8, WARN), (0.9, BAD)],
            decimals=0,
        ),
    ]


def _per_token() -> list[Placed]:
    edge = {
        "custom.lineWidth": 0,
        "custom.fillOpacity": 0,
        "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False},
    }
    dashes = {"custom.lineStyle": {"fill": "dash", "dash": [6, 4]}, "custom.fillOpacity": 0}

    def band(around: str, high: str, low: str) -> list[Ask]:
        """Two standard errors of the baseline either way, filled between."""
        filled = {**edge, "custom.fillBelowTo": low, "custom.fillOpacity": 40}
        return [
            Ask(f"{around} * (1 + 2 * {ERROR})", high, FAINT, style=filled),
            Ask(f"{around} * (1 - 2 * {ERROR})", low, FAINT, style=edge),
        ]

    return [
        lines(
            "Energy per output token, and what the same work should cost",
            "The line is what a token costs; the dashes are what the same work should cost by the baseline, "
            "in a band of two standard errors either way. Mix and load move both. Worry if the line leaves "
            "the band and stays outside. Without a band there is no baseline yet.",
            "joule",
            [
                *band(EXPECTED, "expected, high", "expected, low"),
                Ask(EXPECTED, "expected", FAINT, style=dashes),
                Ask(
                    joules_per_token(),
                    "actual",
                    ACCENT,
                    style={"custom.lineWidth": 2, "custom.fillOpacity": 0},
                ),
            ],
            none=NO_TOKENS,
            log_base=2,
            bounds=(None, None),
            size=(12, 9),
        ),
        lines(
            "Index by engine",
            "Actual over expected joules of the same work, by engine, and the band in which a difference "
            "may be chance. 1 is as usual. The dashed lines are a tenth and a fifth more. Worry about a "
            "step that stays: then the regression alert speaks.",
            "short",
            [
                *band(f"max({index('instance', 'engine')}) ^ 0", "as usual, high", "as usual, low"),
                Ask(index("instance", "engine"), "{{engine}} @ {{instance}}", style={"custom.lineWidth": 2}),
            ],
            none=NO_BASELINE,
            bounds=(None, None),
            at_least=(0.9, 1.2),
            thresholds=INDEX_STEPS,
            decimals=2,
            size=(12, 9),
        ),
        _baselines(),
    ]


def _baselines() -> Placed:
    def by(metric: str, *labels: str) -> str:
        names = ", ".join(("instance", "engine", *labels))
        return f"max by ({names}) ({of_models(engines(metric))})"

    created = "joulescope_baseline_created_timestamp_seconds"
    return grid(
        "Baselines",
        "What each engine is compared with, and how much of the learning is done: it is compared at 100 %. "
        "Worry if a baseline is older than the model or the version that is served: pin a new one.",
        "short",
        {
            "engine": "Engine",
            "instance": "Sidecar",
            "baseline": "Baseline",
            "source": "Source",
            "created_version": "Made with",
        },
        [
            Column(
                "Learned",
                by("joulescope_baseline_learned_ratio"),
                {"unit": "percentunit", "decimals": 0, "custom.width": 90},
            ),
            Column(
                "Error",
                by("joulescope_baseline_error_ratio"),
                {"unit": "percentunit", "decimals": 1, "custom.width": 90},
            ),
            Column(
                "Age",
                f"time() - {by(created)}",
                {"unit": "s", "decimals": 0, "custom.width": 110},
            ),
            Column(
                "",
                by("joulescope_baseline_info", "baseline", "source", "created_version"),
            ),
        ],
        sort="Engine",
        none=NO_BASELINE,
        key_style={
            "Engine": {"custom.width": 240},
            "Sidecar": {"custom.width": 130},
            "Source": {"custom.width": 90},
            "Made with": {"custom.width": 110},
        },
        size=(24, 4),
    )


def _power() -> list[Placed]:
    rest = {
        "idle": "joulescope_idle_energy_joules_total",
        "overhead": "joulescope_overhead_energy_joules_total",
        "unattributed": "joulescope_unattributed_energy_joules_total",
    }
    kinds = {"decode": DECODE, "prefill": PREFILL, "recomputed": OVERHEAD, "rejected": UNATTRIBUTED}

    def computed(kind: str) -> str:
        return total(of_models(rate(engines("joulescope_computed_tokens_total", f'kind="{kind}"'))))

    return [
        lines(
            "Power by phase",
            "Watts of the engine's requests by phase, and below none of it: idle, overhead and unexplained "
            "watts of the GPUs it runs on. Where two engines share a GPU, these three are of both. Worry if "
            "prefill grows while the prompts do not: the prefix cache may be lost.",
            "watt",
            [
                Ask(phase_watts("decode"), "decode", DECODE),
                Ask(phase_watts("prefill"), "prefill", PREFILL),
                *(
                    Ask(total(rated_of_gpus(metric)), name, PART_COLOURS[name])
                    for name, metric in rest.items()
                ),
            ],
            none=NO_ENGINE,
            stacked=True,
            size=(12, 8),
        ),
        lines(
            "Tokens computed",
            "What the steps computed, a second, each token once: decode, prefill, computed again after a "
            "preemption, and drafted tokens that were wrong. Amber and red are work for nothing. "
            "Worry if they last.",
            TOKENS_PER_SECOND,
            [Ask(computed(kind), kind, colour) for kind, colour in kinds.items()],
            none=NO_ENGINE,
            stacked=True,
            size=(12, 8),
        ),
    ]


def _batch() -> list[Placed]:
    return [
        lines(
            "Running and waiting",
            "Requests in the running batch and in the queue, after the last step. A queue while the batch "
            "is not full means that the KV cache is. "
            "Worry if waiting grows without end.",
            "short",
            [
                Ask(mean("joulescope_requests_running"), "running", DECODE),
                Ask(mean("joulescope_requests_waiting"), "waiting", OVERHEAD),
            ],
            none="not connected",
            decimals=0,
            size=(6, 7),
        ),
        lines(
            "Tokens in a step",
            "Tokens that a step computes: in the last step before each scrape, and in the mean. A decode "
            "step has one for each running request; the peaks are prompts. Larger batches cost less a "
            "token. Worry if it is small while requests wait.",
            "short",
            [
                Ask(mean("joulescope_batch_tokens"), "last step", FAINT, style={"custom.lineWidth": 1}),
                Ask(ratio(COMPUTED, STEPS), "mean", ACCENT, style={"custom.lineWidth": 2}),
            ],
            bounds=(1, None),
            log_base=10,
            none="not connected",
            size=(6, 7),
        ),
        lines(
            "Steps",
            "Scheduler iterations a second. It falls as steps grow longer; a fall at the same batch is a "
            "slower GPU or a busy host. "
            "Worry about such a fall.",
            PER_SECOND,
            [Ask(STEPS, "steps", ACCENT)],
            none=NO_ENGINE,
            size=(6, 7),
        ),
        lines(
            "KV cache and preemptions",
            "Share of the KV cache in use, and how often running requests were pushed out of it, a second. "
            "Worry about any preemption that goes on: each computes its tokens again.",
            "percentunit",
            [
                Ask(f"max({of_models(engines('joulescope_kv_cache_usage_ratio'))})", "in use", ACCENT),
                Ask(
                    total(of_models(rate(engines("joulescope_preemptions_total")))),
                    "preemptions",
                    BAD,
                    style={"unit": PER_SECOND, "custom.axisPlacement": "right", "custom.axisSoftMax": 1},
                ),
            ],
            none="not connected",
            size=(6, 7),
        ),
    ]


def _gpus() -> list[Placed]:
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


ENGINE = Board(
    name="engine",
    title="Engine",
    question="What does this engine cost per token, is that as usual, and what is it doing?",
    variables=("cluster", "instance", "model", "engine", "gpu"),
    rows=[
        Row("At a glance", _glance()),
        Row("Is it as usual?", _per_token()),
        Row("Power and work", _power()),
        Row("Batch", _batch()),
        Row("Its GPUs", _gpus()),
    ],
)
