"""*Requests*: what a request costs, how costs spread, and who the dear ones are."""

from __future__ import annotations

from grafana.empty import NO_ENGINE, NO_REQUESTS, NO_TENANT
from grafana.frame import Board, Row
from grafana.look import (
    BAD,
    DECODE,
    GOOD,
    PART_COLOURS,
    PER_SECOND,
    WARN,
    Ask,
    Column,
    Placed,
    bars,
    figure,
    grid,
    lines,
)
from grafana.promql import (
    ATTRIBUTED,
    GENERATED,
    engines,
    grown,
    of_engines,
    of_models,
    over_range,
    rate,
    ratio,
    total,
)

FINISHED = "joulescope_requests_finished_total"
PER_REQUEST = "joulescope_request_energy_joules"
PER_TOKEN = "joulescope_request_output_token_energy_joules"
SHADES = {0.5: "#8fd3b4", 0.9: "#2f9e6b", 0.99: "#d99a2b"}


def buckets(metric: str, over: str = "rate") -> str:
    """Buckets of a histogram of the chosen models, by upper edge."""
    series = engines(f"{metric}_bucket")
    return total(of_models(rate(series) if over == "rate" else grown(series)), "le")


def quantile(share: float, metric: str, over: str = "rate") -> str:
    """A quantile, as near as the buckets' edges let it be known."""
    return f"histogram_quantile({share:g}, {buckets(metric, over)})"


def finished(more: str = "", *by: str) -> str:
    """Requests that finished, a second."""
    return of_engines(FINISHED, more, *by)


def _glance() -> list[Placed]:
    return [*_glance_left(), *_glance_right()]


def _glance_left() -> list[Placed]:
    ended = over_range(FINISHED)
    return [
        figure(
            "Half cost less",
            "Median joules of the requests that finished in the time shown. Between the edges of two "
            "buckets it is interpolated. "
            "Worry if it rises from day to day.",
            "joule",
            quantile(0.5, PER_REQUEST, "increase"),
            none=NO_REQUESTS,
            over_range=True,
            colour=DECODE,
        ),
        figure(
            "One in 100 costs more",
            "99th percentile of the joules of a request, in the time shown. Far above the median, a few "
            "requests carry much of the bill: look for long prompts below. "
            "Worry above ten times the median.",
            "joule",
            quantile(0.99, PER_REQUEST, "increase"),
            none=NO_REQUESTS,
            over_range=True,
            colour="#d99a2b",
        ),
        figure(
            "Mean per request",
            "All joules of requests over the requests that finished, in the time shown: the figure to "
            "reckon with. "
            "Worry if it rises while the median does not.",
            "joule",
            ratio(total(of_models(grown(ATTRIBUTED))), ended),
            none=NO_REQUESTS,
            over_range=True,
        ),
    ]


def _glance_right() -> list[Placed]:
    aborted = over_range(FINISHED, 'reason="abort"')
    ended = over_range(FINISHED)
    return [
        figure(
            "Mean per output token",
            "All joules of requests over output tokens, in the time shown. Prompts are in it: a service "
            "with long prompts and short answers has a high one. "
            "Worry if it rises while requests stay alike.",
            "joule",
            ratio(
                total(of_models(grown(ATTRIBUTED), tokens_only=True)),
                total(of_models(grown(GENERATED), tokens_only=True)),
            ),
            none=NO_REQUESTS,
            over_range=True,
        ),
        figure(
            "Requests finished",
            "Requests that leave the engines, a second, for whatever reason. "
            "Worry if it falls while requests arrive.",
            PER_SECOND,
            finished(),
            none=NO_REQUESTS,
        ),
        figure(
            "Aborted",
            "Share of the requests whose client went away, in the time shown. Worry above a tenth: their "
            "joules came to nothing, and a time limit is perhaps too short.",
            "percentunit",
            ratio(aborted, ended),
            none=NO_REQUESTS,
            thresholds=[(None, GOOD), (0.1, WARN), (0.25, BAD)],
            decimals=1,
            over_range=True,
        ),
    ]


def _quantiles(metric: str) -> list[Ask]:
    names = {0.5: "half", 0.9: "nine in ten", 0.99: "99 in 100"}
    return [
        # Exemplars are of the buckets and not of a quantile: one query brings them all.
        Ask(quantile(share, metric), f"{names[share]} cost less", SHADES[share], exemplars=share == 0.99)
        for share in SHADES
    ]


def _spread() -> list[Placed]:
    return [
        lines(
            "Joules per request",
            "Quantiles of what finished requests cost. The dots, where Prometheus stores exemplars, are "
            "single requests: each leads to its trace. Worry if the upper line climbs alone: a few became "
            "dear.",
            "joule",
            _quantiles(PER_REQUEST),
            none=NO_REQUESTS,
            size=(12, 8),
        ),
        bars(
            "Requests by their joules",
            "How many requests cost up to so many joules and more than the line above, in the time shown. "
            "Two humps are two kinds of request. "
            "Worry if a new one appears at the lower end.",
            "short",
            [Ask(buckets(PER_REQUEST, "increase"), "{{le}}")],
            none=NO_REQUESTS,
            decimals=0,
            buckets=True,
            colour=DECODE,
            size=(12, 8),
        ),
        lines(
            "Joules per output token",
            "Quantiles of joules per output token of finished requests. It compares long answers with short "
            "ones; worry if all three lines climb together.",
            "joule",
            _quantiles(PER_TOKEN),
            none=NO_REQUESTS,
            size=(12, 8),
        ),
        bars(
            "Requests by their joules per output token",
            "How many requests cost up to so many joules for each token they put out, in the time shown. "
            "Those at the end have long prompts and few tokens of answer. "
            "Worry if their part grows.",
            "short",
            [Ask(buckets(PER_TOKEN, "increase"), "{{le}}")],
            none=NO_REQUESTS,
            decimals=0,
            buckets=True,
            colour=DECODE,
            size=(12, 8),
        ),
    ]


def _kinds() -> list[Placed]:
    ended = finished()

    def a_request(series: str) -> str:
        return ratio(total(of_models(rate(series))), ended)

    def prompt(kind: str) -> str:
        return a_request(engines("joulescope_computed_tokens_total", f'kind="{kind}"'))

    reasons = {
        "stop": "#2f9e6b",
        "length": "#3d8fd1",
        "abort": "#d99a2b",
        "error": "#c2556b",
        "repetition": "#8a94a6",
    }
    return [
        lines(
            "Tokens of a request",
            "Mean tokens of a request: computed of its prompt, found in a cache, put out. It says whether "
            "requests became dearer because they became longer. "
            "Worry if they did not.",
            "si:tok",
            [
                Ask(prompt("prefill"), "prompt, computed", PART_COLOURS["prefill"]),
                Ask(a_request(engines("joulescope_cached_tokens_total")), "prompt, from a cache", "#3d8fd1"),
                Ask(a_request(GENERATED), "output", PART_COLOURS["decode"]),
            ],
            none=NO_REQUESTS,
        ),
        lines(
            "How requests end",
            "Requests that left the engine, a second, by vLLM's reason. Worry if aborts or errors take a "
            "growing part.",
            PER_SECOND,
            [Ask(finished(f'reason="{reason}"'), reason, colour) for reason, colour in reasons.items()],
            none=NO_REQUESTS,
            stacked=True,
        ),
        bars(
            "Dearest engines",
            "The ten engines with the most joules for a request, in the time shown. Single requests are in "
            "no metric: their figures are in spans, in the request log and in joulescope top. "
            "Worry about one far above its like.",
            "joule",
            [
                Ask(
                    "topk(10, "
                    + ratio(
                        total(of_models(grown(ATTRIBUTED)), "instance", "engine"),
                        over_range(FINISHED, "", "instance", "engine"),
                    )
                    + ")",
                    "{{engine}} @ {{instance}}",
                )
            ],
            none=NO_REQUESTS,
            long_names=True,
        ),
    ]


def _owners(kind: str, label: str, none: str, names: tuple[str, str]) -> list[Placed]:
    """Panels of adapters, or of tenants: power, joules per token, and a table of both with requests."""
    (one, many), chosen = names, f'{label}=~"${label}"'
    energy = engines(f"joulescope_{kind}_energy_joules_total", chosen)
    generated = engines(f"joulescope_{kind}_generated_tokens_total", chosen)
    requests = engines(f"joulescope_{kind}_requests_finished_total", chosen)
    legend = f"{{{{{label}}}}}"

    def per(series: str) -> str:
        return total(of_models(rate(series)), label)

    def of_range(series: str) -> str:
        return total(of_models(grown(series)), label)

    return [
        lines(
            f"Power by {one}",
            f"Watts of the requests of each {one}; together they are the power of all requests. What "
            f"exceeds the limit of {many} is counted as other. "
            "Worry about one that grows alone.",
            "watt",
            [Ask(per(energy), legend)],
            none=none,
            stacked=True,
            size=(8, 8),
        ),
        lines(
            f"Energy per output token by {one}",
            f"Joules over output tokens of each {one}. Worry if one is far above the others at the same "
            "load: its prompts are longer, or its cache hits fewer.",
            "joule",
            [Ask(ratio(per(energy), per(generated)), legend)],
            none=none,
            size=(8, 8),
        ),
        grid(
            f"{many.capitalize()}",
            f"Each {one} in the time shown, the dearest in all first. Worry about one whose requests cost "
            "far more than the others' for the same service.",
            "short",
            {label: one.capitalize()},
            [
                Column("Energy", of_range(energy), {"unit": "joule", "custom.width": 85}),
                Column(
                    "J/request",
                    ratio(of_range(energy), of_range(requests)),
                    {"unit": "joule", "custom.width": 90},
                ),
                Column(
                    "J/token",
                    ratio(of_range(energy), of_range(generated)),
                    {"unit": "joule", "custom.width": 85},
                ),
                Column("Requests", of_range(requests), {"unit": "short", "decimals": 0, "custom.width": 85}),
            ],
            sort="Energy",
            none=none,
            size=(8, 8),
        ),
    ]


REQUESTS = Board(
    name="requests",
    title="Requests",
    question="What does a request cost, and which are the dear ones?",
    variables=("cluster", "instance", "model", "engine", "lora", "tenant"),
    rows=[
        Row("At a glance", _glance()),
        Row("How costs spread", _spread()),
        Row("Why they cost so", _kinds()),
        Row("By adapter", _owners("adapter", "lora", NO_ENGINE, ("adapter", "adapters"))),
        Row("By tenant", _owners("tenant", "tenant", NO_TENANT, ("tenant", "tenants"))),
    ],
)
