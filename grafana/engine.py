"""*Engine*: what one engine costs now, whether that is as usual, and what it does."""

from __future__ import annotations

from grafana.empty import NO_BASELINE, NO_ENGINE, NO_TOKENS
from grafana.engine_baseline import as_usual
from grafana.engine_gpus import its_gpus, rated_of_gpus
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
    Placed,
    figure,
    lines,
)
from grafana.promql import (
    engines,
    index,
    joules_per_token,
    of_engines,
    of_models,
    rate,
    ratio,
    tokens,
    total,
    watts,
)

PHASES = 'phase="{}"'


def phase_watts(phase: str) -> str:
    """Watts of the chosen engines' requests in one phase."""
    joules = engines("joulescope_attributed_energy_joules_total", PHASES.format(phase))
    return total(of_models(rate(joules)))


def mean(metric: str) -> str:
    """Sum over the chosen engines of a gauge."""
    return total(of_models(engines(metric)))


COMPUTED = of_engines("joulescope_computed_tokens_total")
STEPS = of_engines("joulescope_steps_total")


def _glance() -> list[Placed]:
    return [*_glance_left(), *_glance_right()]


def _glance_left() -> list[Placed]:
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
    ]


def _glance_right() -> list[Placed]:
    return [
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


def _power() -> list[Placed]:
    rest = {
        "idle": "joulescope_idle_energy_joules_total",
        "overhead": "joulescope_overhead_energy_joules_total",
        "unattributed": "joulescope_unattributed_energy_joules_total",
    }
    kinds = {"decode": DECODE, "prefill": PREFILL, "recomputed": OVERHEAD, "rejected": UNATTRIBUTED}

    def computed(kind: str) -> str:
        return of_engines("joulescope_computed_tokens_total", f'kind="{kind}"')

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
                    of_engines("joulescope_preemptions_total"),
                    "preemptions",
                    BAD,
                    style={"unit": PER_SECOND, "custom.axisPlacement": "right", "custom.axisSoftMax": 1},
                ),
            ],
            none="not connected",
            size=(6, 7),
        ),
    ]


ENGINE = Board(
    name="engine",
    title="Engine",
    question="What does this engine cost per token, is that as usual, and what is it doing?",
    variables=("cluster", "instance", "model", "engine", "gpu"),
    rows=[
        Row("At a glance", _glance()),
        Row("Is it as usual?", as_usual()),
        Row("Power and work", _power()),
        Row("Batch", _batch()),
        Row("Its GPUs", its_gpus()),
    ],
)
