"""*Efficiency and waste*: what comes out of a joule, what came to nothing, and is the account sound?"""

from __future__ import annotations

from grafana.account import account
from grafana.diagnosis import between, why
from grafana.empty import NO_BASELINE, NO_ENGINE, NO_GPU
from grafana.frame import Board, Row
from grafana.look import (
    ACCENT,
    BAD,
    DECODE,
    GOOD,
    IDLE,
    INDEX_STEPS,
    OVERHEAD,
    TOKENS_PER_JOULE,
    UNATTRIBUTED,
    WARN,
    Ask,
    Placed,
    bars,
    figure,
    lines,
)
from grafana.promql import (
    ATTRIBUTED,
    MEASURED,
    gpus,
    grown,
    index,
    numbered,
    of_engines,
    of_models,
    over_range,
    rate,
    ratio,
    tokens,
    total,
    watts,
)

IDLE_JOULES = "joulescope_idle_energy_joules_total"
OVERHEAD_JOULES = "joulescope_overhead_energy_joules_total"
UNKNOWN_JOULES = "joulescope_unattributed_energy_joules_total"
WASTED = "joulescope_wasted_energy_joules_total"
AVOIDED = "joulescope_avoided_energy_joules_total"
COMPUTED = "joulescope_computed_tokens_total"
CACHED = "joulescope_cached_tokens_total"


def gpu_share(metric: str) -> str:
    """Part of the measured joules of the chosen GPUs, in the time shown."""
    return ratio(total(grown(gpus(metric))), total(grown(MEASURED)))


def _glance() -> list[Placed]:
    return [*_glance_left(), *_glance_right()]


def _glance_left() -> list[Placed]:
    return [
        figure(
            "Output per joule",
            "Output tokens for a joule of the chosen models' requests: throughput per watt. More is better; "
            "it grows with the batch. "
            "Worry if it falls at the same load.",
            TOKENS_PER_JOULE,
            ratio(tokens(tokens_only=True), watts(tokens_only=True)),
            none="no tokens now",
            colour=DECODE,
        ),
        figure(
            "Came to nothing",
            "Joules of work that nobody got (aborted requests, rejected drafts, recompute) over the joules "
            "of requests, in the time shown. Worry above a tenth.",
            "percentunit",
            ratio(over_range(WASTED), total(of_models(grown(ATTRIBUTED)))),
            none=NO_ENGINE,
            thresholds=[(None, GOOD), (0.05, WARN), (0.1, BAD)],
            decimals=1,
            over_range=True,
        ),
        figure(
            "Idle",
            "Share of the measured joules while no request ran, in the time shown, of the chosen GPUs. "
            "Worry above two fifths: there are more GPUs than work.",
            "percentunit",
            gpu_share(IDLE_JOULES),
            none=NO_GPU,
            thresholds=[(None, GOOD), (0.2, WARN), (0.4, BAD)],
            decimals=1,
            over_range=True,
        ),
    ]


def _glance_right() -> list[Placed]:
    avoided = over_range(AVOIDED)
    return [
        figure(
            "Overhead",
            "Share of the measured joules for work that no request asked for: start-up, empty data-parallel "
            "steps, recompute. Worry above a twentieth: engines restart often, or their load is uneven.",
            "percentunit",
            gpu_share(OVERHEAD_JOULES),
            none=NO_GPU,
            thresholds=[(None, GOOD), (0.02, WARN), (0.05, BAD)],
            decimals=1,
            over_range=True,
        ),
        figure(
            "Saved by caches",
            "Joules that cache hits avoided, of those and the requests' joules together, in the time shown. "
            "Never drawn, estimated by the model. Worry if it falls: prompts begin differently, or the "
            "cache is too small.",
            "percentunit",
            ratio(avoided, f"{avoided} + {total(of_models(grown(ATTRIBUTED)))}"),
            none=NO_ENGINE,
            colour=ACCENT,
            decimals=1,
            over_range=True,
        ),
        figure(
            "Worst index",
            "Highest of the engines' actual over expected joules for the same work. 1 is as usual; worry "
            "above 1.1.",
            "short",
            f"max({index('instance', 'engine')})",
            none=NO_BASELINE,
            thresholds=INDEX_STEPS,
            decimals=2,
        ),
    ]


def _waste() -> list[Placed]:
    reasons = {"abort": OVERHEAD, "rejected_draft": UNATTRIBUTED, "preemption": ACCENT}
    overheads = {
        "startup": "#e3c07a",
        "dummy_batch": OVERHEAD,
        "preemption": "#a8741a",
        "rejected_draft": "#7d5714",
    }
    unknown = {
        "no_engine": UNATTRIBUTED,
        "records_lost": "#e08c9c",
        "engine_silent": "#8f3a4c",
        "unmapped": "#b0b8c4",
        "mig_instance": "#7a8494",
        "mig_rest": "#5a6270",
    }
    return [
        lines(
            "Work that came to nothing",
            "Watts whose work nobody got: requests that were aborted, drafted tokens that were wrong, "
            "tokens computed again. They are in the requests' joules or in overhead already: do not add "
            "them. "
            "Worry about any that lasts all day.",
            "watt",
            [
                Ask(of_engines(WASTED, f'reason="{reason}"'), reason, colour)
                for reason, colour in reasons.items()
            ],
            none=NO_ENGINE,
            stacked=True,
        ),
        lines(
            "Watts for no request",
            "Watts of the chosen GPUs that no request is charged with: idle, and overhead by reason. Worry "
            "about start-up that comes back, and about empty steps all day.",
            "watt",
            [
                Ask(total(rate(gpus(IDLE_JOULES))), "idle", IDLE),
                *(
                    Ask(total(rate(gpus(OVERHEAD_JOULES, f'reason="{reason}"'))), reason, colour)
                    for reason, colour in overheads.items()
                ),
            ],
            none=NO_GPU,
            stacked=True,
        ),
        lines(
            "Watts of unknown cause",
            "Measured watts that nobody explains, by reason: no engine reports, records were lost, an "
            "engine fell silent, no engine names the GPU, a MIG slice is not split. Worry about any that "
            "last.",
            "watt",
            [
                Ask(total(rate(gpus(UNKNOWN_JOULES, f'reason="{reason}"'))), reason, colour)
                for reason, colour in unknown.items()
            ],
            none=NO_GPU,
            stacked=True,
        ),
    ]


def _saved() -> list[Placed]:
    computed = of_engines(COMPUTED)
    return [
        lines(
            "Watts that caches save",
            "What the prompt tokens found in a cache would have cost to compute, by cache. An estimate of "
            "the model; it was never drawn and is in no sum. Worry if it falls while prompts stay as they "
            "are.",
            "watt",
            [Ask(of_engines(AVOIDED, "", "reason"), "{{reason}}", DECODE)],
            none=NO_ENGINE,
            stacked=True,
        ),
        lines(
            "Prompt tokens from a cache",
            "Share of the prompt tokens that a cache had. The savings follow it; it falls when the cache is "
            "too small or prompts no longer begin alike. "
            "Worry about a fall after a change of prompts or of the cache's size.",
            "percentunit",
            [
                Ask(
                    ratio(
                        of_engines(CACHED, "", "served_model"),
                        f"{of_engines(CACHED, '', 'served_model')} + "
                        + of_engines(COMPUTED, 'kind="prefill"', "served_model"),
                    ),
                    "{{served_model}}",
                )
            ],
            none=f"{NO_ENGINE}, or no prompts",
            bounds=(0, 1),
        ),
        lines(
            "Tokens computed for nothing",
            "Share of all computed tokens that were computed again after a preemption, or drafted and "
            "rejected. Worry about recompute above 1 %: the KV cache is too small for the load.",
            "percentunit",
            [
                Ask(ratio(of_engines(COMPUTED, 'kind="recomputed"'), computed), "computed again", OVERHEAD),
                Ask(
                    ratio(of_engines(COMPUTED, 'kind="rejected"'), computed), "rejected drafts", UNATTRIBUTED
                ),
            ],
            none=f"{NO_ENGINE}, or no work",
        ),
    ]


def _throughput() -> list[Placed]:
    waste = over_range(WASTED, "", "instance", "engine")
    idle = rate(gpus(IDLE_JOULES))
    return [
        lines(
            "Output tokens per joule",
            "Throughput per watt of each model, of its requests alone. It rises with the batch until the "
            "GPU is full; a fall at the same load is a regression. "
            "Worry about such a fall.",
            TOKENS_PER_JOULE,
            [Ask(ratio(tokens("served_model"), watts("served_model")), "{{served_model}}")],
            none="no tokens now",
        ),
        bars(
            "Engines that waste most",
            "The ten engines with the most joules that came to nothing, in the time shown. "
            "Worry if one stands far above the rest: its clients or its cache are ill.",
            "joule",
            [Ask(f"topk(10, {waste})", "{{engine}} @ {{instance}}")],
            none=NO_ENGINE,
            long_names=True,
            colour=OVERHEAD,
        ),
        bars(
            "GPUs that idle most",
            "The ten GPUs with the most watts drawn now while no request runs. "
            "Worry if the same ones stay on top.",
            "watt",
            [Ask(f"topk(10, {numbered(idle)} > 0)", "{{instance}} GPU {{index}}")],
            none="no GPU idles now",
            long_names=True,
            colour=IDLE,
        ),
    ]


EFFICIENCY = Board(
    name="efficiency",
    title="Efficiency and waste",
    question="How much comes out of a joule, and how much of the energy came to nothing?",
    variables=("cluster", "instance", "model", "engine", "gpu"),
    rows=[
        Row("At a glance", _glance()),
        Row("Why did joules per token change?", why()),
        Row("What lies between load and joules", between()),
        Row("What came to nothing", _waste()),
        Row("What was saved, and what was done twice", _saved()),
        Row("What comes out of a watt", _throughput()),
        Row("Is the account itself sound?", account()),
    ],
)
