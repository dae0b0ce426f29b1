"""Rows of *Efficiency and waste*: why joules per token changed, and what lies between load and joules."""

from __future__ import annotations

from collections.abc import Mapping

from grafana.empty import NO_DIAGNOSIS, NO_ENGINE, NO_GPM, NO_STEPS
from grafana.look import (
    ACCENT,
    DECODE,
    FAINT,
    FLOPS_PER_BYTE,
    IDLE,
    OVERHEAD,
    PREFILL,
    UNATTRIBUTED,
    Ask,
    Column,
    Placed,
    bars,
    grid,
    lines,
)
from grafana.promql import (
    GENERATED,
    TARGET,
    engines,
    gpus,
    of_engines,
    of_models,
    of_their_gpus,
    rate,
    ratio,
)

CHANGE = "joulescope_diagnosis_change_joules_per_token"
LEVEL = "joulescope_diagnosis_joules_per_token"
STEP_SECONDS = "joulescope_step_seconds_total"
STEP_JOULES = "joulescope_modelled_step_energy_joules_total"


def change() -> str:
    """J/token by cause, of the engines that have a diagnosis; each counts by its tokens."""
    told = of_models(engines(CHANGE), tokens_only=True)
    tokens = f"sum by ({TARGET}, engine) ({rate(GENERATED)})"
    weighed = f"sum by (cause) ({told} * on ({TARGET}, engine) group_left () {tokens})"
    first = of_models(engines(CHANGE, 'cause="unexplained"'), tokens_only=True)
    whole = f"sum({tokens} and on ({TARGET}, engine) ({first}))"
    return f"{weighed} / on () group_left () ({whole} > 0)"


def why() -> list[Placed]:
    """What each cause did to the joules per token."""
    return [
        bars(
            "Why J/token changed",
            "What each cause did to the joules per token, in the last minutes against those of an hour ago: "
            "green made tokens cheaper, red dearer. With unexplained, they sum to the change. Of several "
            "engines the mean, by tokens. Worry about a red one that is no cause of yours; "
            "joulescope diagnose says what speaks for it and what can be done.",
            "joule",
            [
                Ask(f"{change()} > 0", "dearer by {{cause}}", UNATTRIBUTED),
                Ask(f"-({change()}) > 0", "cheaper by {{cause}}", DECODE),
            ],
            none=NO_DIAGNOSIS,
            long_names=True,
            size=(8, 10),
        ),
        lines(
            "Causes of the change over time",
            "The same at every moment: what each cause does to the joules per token against an hour before; "
            "above 0 it makes tokens dearer. Load comes and goes with the day. Worry about a cause that "
            "comes with a roll-out and stays, and about much unexplained.",
            "joule",
            # Apart, since a stack goes up or down series by series, and a cause may do both in turn.
            [
                Ask(f"({change()}) > 0", "dearer by {{cause}}"),
                Ask(f"({change()}) < 0", "cheaper by {{cause}}"),
            ],
            none=NO_DIAGNOSIS,
            stacked=True,
            stairs=True,
            bounds=(None, None),
            size=(16, 10),
        ),
        _diagnoses(),
    ]


def _diagnoses() -> Placed:
    def by(metric: str, more: str = "", *labels: str) -> str:
        names = ", ".join(("instance", "engine", *labels))
        return f"max by ({names}) ({of_models(engines(metric, more))})"

    def level(window: str) -> str:
        return by(LEVEL, f'window="{window}"')

    end = by("joulescope_diagnosis_window_end_timestamp_seconds", 'window="now"')
    joules = {"unit": "joule", "custom.width": 110}
    return grid(
        "Latest diagnosis of each engine",
        "Joules per token of the two windows that were compared, and the first cause that is beyond chance: "
        "none, where there is no such cause. Worry if unexplained is as large as the change, or if the "
        "windows are older than the pause between diagnoses.",
        "short",
        {"engine": "Engine", "instance": "Sidecar", "cause": "First cause"},
        [
            Column("Before", level("before"), joules),
            Column("Now", level("now"), joules),
            Column("Change", f"{level('now')} / {level('before')} - 1", _PERCENT),
            Column("Unexplained", by(CHANGE, 'cause="unexplained"'), joules),
            Column("Age", f"time() - {end}", {"unit": "s", "decimals": 0, "custom.width": 90}),
            Column("", _first_causes()),
        ],
        sort="Change",
        none=NO_DIAGNOSIS,
        key_style={"Engine": {"custom.width": 260}, "First cause": {"custom.width": 160}},
        size=(24, 5),
    )


def _first_causes() -> str:
    """The cause that each engine had last: for a while after it is another, a query finds both."""
    seen = of_models(f"timestamp({engines('joulescope_diagnosis_first_cause_info')})")
    return f"topk by (instance, engine) (1, max by (instance, engine, cause) ({seen}))"


_PERCENT = {"unit": "percentunit", "decimals": 1, "custom.width": 100}


def between() -> list[Placed]:
    """What lies between load and joules."""
    return [*_steps(), *_memory()]


def _steps() -> list[Placed]:
    bounds = {"memory": ACCENT, "compute": DECODE, "power": OVERHEAD, "host": UNATTRIBUTED}
    parts = {
        "static": IDLE,
        "weights": ACCENT,
        "kv_cache": OVERHEAD,
        "compute": DECODE,
        "sequences": PREFILL,
    }
    return [
        _shares(
            "What sets the pace",
            "Share of the GPUs' time with requests running, by what set the pace of steps: memory, "
            "arithmetic, the power limit, or the host that they waited for. By the time model. Worry "
            "about host: joules of waiting buy nothing.",
            STEP_SECONDS,
            "bound",
            bounds,
        ),
        _shares(
            "What the joules of steps are for",
            "Share of the modelled joules of steps. Static power is paid for their time, whatever they do: "
            "larger batches and faster steps make it less. Worry if it is above a half while requests "
            "wait.",
            STEP_JOULES,
            "part",
            parts,
        ),
        lines(
            "Arithmetic intensity",
            "Floating-point operations of steps for each byte that they read, by model. It grows with the "
            "batch and with prompts; below the GPU's own ratio of the two (300 or so of an H100) memory "
            "sets the pace. Worry if it falls at the same load: the batch is held back.",
            FLOPS_PER_BYTE,
            [
                Ask(
                    ratio(
                        of_engines("joulescope_step_flops_total", "", "served_model"),
                        of_engines("joulescope_step_read_bytes_total", "", "served_model"),
                    ),
                    "{{served_model}}",
                )
            ],
            none=NO_STEPS,
        ),
    ]


def _shares(title: str, text: str, metric: str, label: str, colours: Mapping[str, str]) -> Placed:
    """What part of a counter each value of a label has."""
    return lines(
        title,
        text,
        "percentunit",
        [
            Ask(
                ratio(of_engines(metric, f'{label}="{value}"'), of_engines(metric)),
                value.replace("_", " "),
                colour,
            )
            for value, colour in colours.items()
        ],
        none=NO_STEPS,
        stacked=True,
        bounds=(0, 1),
    )


def _memory() -> list[Placed]:
    def of_known(metric: str) -> str:
        return ratio(of_engines(metric), of_engines("joulescope_kv_cache_known_seconds_total"))

    def counter(metric: str) -> str:
        return f"avg({of_their_gpus(gpus(metric))})"

    return [
        lines(
            "KV cache: used, and full",
            "Mean usage of the KV cache, and the part of the time in which it held requests back (95 % or "
            "more). Worry if it is full for long: give it more memory, another GPU, or FP8.",
            "percentunit",
            [
                Ask(of_known("joulescope_kv_cache_used_seconds_total"), "used", ACCENT),
                Ask(of_known("joulescope_kv_cache_full_seconds_total"), "full, of the time", UNATTRIBUTED),
            ],
            none=NO_ENGINE,
            bounds=(0, 1),
            size=(12, 8),
        ),
        lines(
            "SMs, tensor cores and DRAM at work",
            "Mean activity by performance counters, of the GPUs of the chosen engines: SMs that had work, "
            "tensor cores, DRAM bandwidth. Worry if all of them rest while requests wait: the host is the "
            "brake.",
            "percentunit",
            [
                Ask(counter("joulescope_gpu_sm_active_ratio"), "SMs", ACCENT),
                Ask(counter("joulescope_gpu_tensor_active_ratio"), "tensor cores", DECODE),
                Ask(counter("joulescope_gpu_dram_active_ratio"), "DRAM", FAINT),
            ],
            none=NO_GPM,
            bounds=(0, 1),
            size=(12, 8),
        ),
    ]
