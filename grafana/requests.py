"""*Requests*: what a request costs, how costs spread, and who the dear ones are."""

from __future__ import annotations

from dataclasses import dataclass

from grafana.empty import NO_ENGINE, NO_REQUESTS, NO_TASK, NO_TENANT
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


@dataclass(frozen=True)
class _Label:
    """An open label, and the metrics that tell the engine's figures by it."""

    kind: str
    label: str
    one: str
    many: str
    none: str
    """What panels say where nothing is told by it."""
    chosen: str = ""

    def _series(self, name: str) -> str:
        return engines(f"joulescope_{self.kind}_{name}_total", self.chosen)

    def rate(self, name: str) -> str:
        """Of a counter, a second."""
        return total(of_models(rate(self._series(name))), self.label)

    def of_range(self, name: str) -> str:
        """What a counter grew by in the time shown."""
        return total(of_models(grown(self._series(name))), self.label)

    def lines(self, title: str, why: str, unit: str, expression: str, *, stacked: bool = False) -> Placed:
        ask = Ask(expression, f"{{{{{self.label}}}}}")
        return lines(title, why, unit, [ask], none=self.none, stacked=stacked, size=(8, 8))


_ADAPTER = _Label("adapter", "lora", "adapter", "adapters", NO_ENGINE, 'lora=~"$lora"')
_TENANT = _Label("tenant", "tenant", "tenant", "tenants", NO_TENANT, 'tenant=~"$tenant"')
_TASK = _Label("task", "task", "task", "tasks", NO_TASK)


def _owners(of: _Label) -> list[Placed]:
    """Panels of adapters, or of tenants: power, joules per token, and a table of both with requests."""
    power = of.lines(
        f"Power by {of.one}",
        f"Watts of the requests of each {of.one}; together they are the power of all requests. What "
        f"exceeds the limit of {of.many} is counted as other. "
        "Worry about one that grows alone.",
        "watt",
        of.rate("energy_joules"),
        stacked=True,
    )
    return [
        power,
        _per_token(of, "its prompts are longer, or its cache hits fewer"),
        _table(of, "than the others' for the same service"),
    ]


def _tasks() -> list[Placed]:
    """Joules per request and per token of each task, and a table of both."""
    per_request = ratio(_TASK.rate("energy_joules"), _TASK.rate("requests_finished"))
    return [
        _TASK.lines(
            "Energy per request by task",
            "Joules of each task's requests over those that finished. Tasks differ by their nature, some by "
            "ten times and more. Worry about one that grows.",
            "joule",
            per_request,
        ),
        _per_token(_TASK, "its prompts are longer for each token of output"),
        _table(_TASK, "than they used to"),
    ]


def _per_token(of: _Label, why: str) -> Placed:
    return of.lines(
        f"Energy per output token by {of.one}",
        f"Joules over output tokens of each {of.one}. Worry if one is far above the others at the same "
        f"load: {why}.",
        "joule",
        ratio(of.rate("energy_joules"), of.rate("generated_tokens")),
    )


def _table(of: _Label, why: str) -> Placed:
    energy = of.of_range("energy_joules")
    requests = of.of_range("requests_finished")
    tokens = of.of_range("generated_tokens")
    return grid(
        of.many.capitalize(),
        f"Each {of.one} in the time shown, the dearest in all first. Worry about one whose requests cost "
        f"far more {why}.",
        "short",
        {of.label: of.one.capitalize()},
        [
            Column("Energy", energy, {"unit": "joule", "custom.width": 85}),
            Column("J/request", ratio(energy, requests), {"unit": "joule", "custom.width": 90}),
            Column("J/token", ratio(energy, tokens), {"unit": "joule", "custom.width": 85}),
            Column("Requests", requests, {"unit": "short", "decimals": 0, "custom.width": 85}),
        ],
        sort="Energy",
        none=of.none,
        size=(8, 8),
    )


REQUESTS = Board(
    name="requests",
    title="Requests",
    question="What does a request cost, and which are the dear ones?",
    variables=("cluster", "instance", "model", "engine", "lora", "tenant"),
    rows=[
        Row("At a glance", _glance()),
        Row("How costs spread", _spread()),
        Row("Why they cost so", _kinds()),
        Row("By task", _tasks()),
        Row("By adapter", _owners(_ADAPTER)),
        Row("By tenant", _owners(_TENANT)),
    ],
)
