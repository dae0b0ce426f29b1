"""Parts of which the dashboards' expressions are made.

Series are chosen by the dashboard's variables and never by a name of one installation. What several sidecars
may have alike (an engine's name, a GPU's index) is only ever matched together with the target that it came
from. ``cluster`` is a label that many installations add to their targets; where nobody does it is empty on
both sides of every match, and changes nothing.
"""

from __future__ import annotations

TARGET = "cluster, job, instance"
"""Labels that name one sidecar."""

SIDECARS = 'cluster=~"$cluster", instance=~"$instance"'


def sidecars(metric: str, more: str = "") -> str:
    """Series of the chosen sidecars; ``more`` are further matchers."""
    return _select(metric, SIDECARS, more)


def engines(metric: str, more: str = "") -> str:
    """Series of the chosen engines, of all models: see :func:`of_models`."""
    return _select(metric, f'{SIDECARS}, engine=~"$engine"', more)


def gpus(metric: str, more: str = "") -> str:
    """Series of the chosen GPUs."""
    return _select(metric, f'{SIDECARS}, gpu=~"$gpu"', more)


def _select(metric: str, matchers: str, more: str) -> str:
    return f"{metric}{{{matchers}{', ' if more else ''}{more}}}"


def _models(more: str = "") -> str:
    """1 for each chosen engine of a chosen model, with the model's name.

    Grouped, so that an engine that comes back with another version of vLLM is still one.
    """
    info = engines("joulescope_engine_info", f'served_model=~"$model"{more}')
    return f"group by ({TARGET}, engine, served_model) ({info})"


MODELS, TOKEN_MODELS = _models(), _models(', unit=~"token|"')
"""All of them, and those that put out tokens: joules per image may not be summed up with joules per token."""


def of_models(vector: str, *, tokens_only: bool = False) -> str:
    """Those of the series by engine whose model is chosen, each with ``served_model``."""
    models = TOKEN_MODELS if tokens_only else MODELS
    return f"{vector} * on ({TARGET}, engine) group_left (served_model) {models}"


def of_their_gpus(vector: str) -> str:
    """Those of the series by GPU on which one of the chosen engines runs; each once."""
    runs = of_models(_select("joulescope_engine_gpu_info", f'{SIDECARS}, engine=~"$engine"', ""))
    return f"({vector} and on ({TARGET}, gpu) ({runs}))"


def numbered(vector: str) -> str:
    """Series by GPU with the GPU's index, which is shorter than its UUID."""
    named = f"group by ({TARGET}, gpu, index) ({gpus('joulescope_gpu_info')})"
    return f"{vector} * on ({TARGET}, gpu) group_left (index) {named}"


def rate(series: str) -> str:
    """Per-second increase, over a window that holds enough scrapes at any zoom."""
    return f"rate({series}[$__rate_interval])"


def grown(series: str) -> str:
    """Increase over the time that the dashboard shows."""
    return f"increase({series}[$__range])"


def total(vector: str, *by: str) -> str:
    """Sum, by labels if there are any."""
    return f"sum by ({', '.join(by)}) ({vector})" if by else f"sum({vector})"


def ratio(above: str, below: str) -> str:
    """One over the other; nothing, and not infinity, where the other is zero."""
    return f"({above}) / ({below} > 0)"


# ------------------------------------------------------------------------------------- often asked for

PARTS = {
    "decode": ("joulescope_attributed_energy_joules_total", 'phase="decode"'),
    "prefill": ("joulescope_attributed_energy_joules_total", 'phase="prefill"'),
    "idle": ("joulescope_idle_energy_joules_total", ""),
    "overhead": ("joulescope_overhead_energy_joules_total", ""),
    "unattributed": ("joulescope_unattributed_energy_joules_total", ""),
}
"""The disjoint parts of the measured joules, as they are stacked from below."""

MEASURED = gpus("joulescope_measured_energy_joules_total")
ATTRIBUTED = engines("joulescope_attributed_energy_joules_total")
GENERATED = engines("joulescope_generated_tokens_total")


def watts(*by: str, tokens_only: bool = False) -> str:
    """Watts of the requests of the chosen models."""
    return total(of_models(rate(ATTRIBUTED), tokens_only=tokens_only), *by)


def tokens(*by: str, tokens_only: bool = False) -> str:
    """Output tokens per second of the chosen models."""
    return total(of_models(rate(GENERATED), tokens_only=tokens_only), *by)


def joules_per_token(*by: str, tokens_only: bool = False) -> str:
    """Attributed joules per output token, now."""
    return ratio(watts(*by, tokens_only=tokens_only), tokens(*by, tokens_only=tokens_only))


def of_engines(metric: str, more: str = "", *by: str) -> str:
    """Rate of a counter of the chosen models' engines."""
    return total(of_models(rate(engines(metric, more))), *by)


def over_range(metric: str, more: str = "", *by: str) -> str:
    """Increase of a counter of the chosen models' engines, in the time shown."""
    return total(of_models(grown(engines(metric, more))), *by)


def index(*by: str) -> str:
    """What the work cost over what the same work should cost by the baseline."""
    actual = of_engines("joulescope_baseline_actual_energy_joules_total", "", *by)
    expected = of_engines("joulescope_baseline_expected_energy_joules_total", "", *by)
    return ratio(actual, expected)
