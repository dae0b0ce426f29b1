"""Writes the page of metrics from the tables.

``python -m joulescope.export.metrics_page > docs/metrics.md``
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from joulescope.export.budget import LARGEST, series_of, snapshot_of
from joulescope.export.metric import Metric
from joulescope.export.metrics import METRICS, SIDECAR
from joulescope.export.otlp_points import otel_kind, otel_name, otel_unit
from joulescope.export.phases import PHASES
from joulescope.export.series_page import LABELLED, render_series
from joulescope.export.span_attributes import (
    EVENT_ATTRIBUTES,
    PHASE_ATTRIBUTES,
    PHASE_NAME,
    SPAN_ATTRIBUTES,
    SPAN_NAME,
)
from joulescope.export.table_baseline import BASELINE
from joulescope.export.table_engine import ENGINE
from joulescope.export.table_factors import MULTIPLIERS
from joulescope.export.table_gpu import ENERGY, GPU
from joulescope.export.table_host import HOST
from joulescope.export.table_labels import LABELS
from joulescope.export.table_ledger import LEDGER, MINUTES
from joulescope.export.table_links import LINKS
from joulescope.export.table_servers import SERVERS
from joulescope.export.table_serving import SERVING
from joulescope.export.table_status import SAMPLER, STATUS
from joulescope.model import INTERVAL_LEVEL

SECTIONS = (
    ("Energy", ENERGY),
    ("GPUs and their sensors", GPU),
    ("GPUs beside their energy", STATUS),
    ("CPU packages and DRAM", HOST),
    ("Engines and requests", ENGINE),
    ("What work costs against what it used to cost", BASELINE),
    ("Adapters, tenants and tasks", LABELS),
    ("Servers without a hook", SERVERS),
    ("Multipliers", MULTIPLIERS),
    ("The sidecar itself", SIDECAR),
    ("How the GPUs are read", SAMPLER),
    ("How pages are served", SERVING),
    ("Links to other nodes", LINKS),
    ("Minutes of engines", MINUTES),
    ("The ledger", LEDGER),
)

INTRODUCTION = """\
# Metrics and span attributes

<!-- Written by `python -m joulescope.export.metrics_page`: change the tables, not this page. -->

Energy is always a counter in joules. Watts are its rate, joules per token the ratio of two rates; a gauge
of either would be wrong over any other window than the one it was computed for.

For each GPU, at every scrape:
`measured = attributed + idle + overhead + unattributed`. The four parts have names of their own and are
disjoint, so they may be summed; *marginal* and *wasted* energy are other views of the same joules and
may not be added to them, and *avoided* energy was never drawn. A figure that is not known has no series:
absent is not zero. Counters whose labels are known beforehand start at 0 with the first scrape. Exemplars
(trace ids) are in the OpenMetrics format only. How many series there are, and what bounds them:
[below](#how-many-series).

The host's own joules, of CPU packages and DRAM, have names of their own, `joulescope_host_…`, and are in none
of the other figures: [host energy](host-energy.md).
"""

QUERIES = (
    ("Watts that a GPU draws", "rate(joulescope_measured_energy_joules_total[1m])"),
    (
        "Watts that serve requests, by engine",
        "sum by (engine) (rate(joulescope_attributed_energy_joules_total[1m]))",
    ),
    (
        "Joules per output token",
        "sum by (engine) (rate(joulescope_attributed_energy_joules_total[5m]))"
        " / sum by (engine) (rate(joulescope_generated_tokens_total[5m]))",
    ),
    (
        "Share of the energy that is idle",
        "sum(rate(joulescope_idle_energy_joules_total[5m]))"
        " / sum(rate(joulescope_measured_energy_joules_total[5m]))",
    ),
    (
        "Share of the energy that prefix-cache hits saved",
        "sum by (engine) (rate(joulescope_avoided_energy_joules_total[5m]))"
        " / (sum by (engine) (rate(joulescope_avoided_energy_joules_total[5m]))"
        " + sum by (engine) (rate(joulescope_attributed_energy_joules_total[5m])))",
    ),
    (
        "How far counter and power readings agree, over ten minutes",
        "rate(joulescope_compared_driver_energy_joules_total[10m])"
        " / rate(joulescope_compared_power_energy_joules_total[10m])",
    ),
    (
        "Watts of CPUs and DRAM that an engine uses",
        "sum by (engine) (rate(joulescope_host_attributed_energy_joules_total[5m]))",
    ),
    (
        "Joules by model",
        "sum by (served_model) ("
        "sum by (job, instance, engine) (increase(joulescope_attributed_energy_joules_total[1h]))"
        " * on (job, instance, engine) group_left (served_model) joulescope_engine_info)",
    ),
    (
        "Joules per output token, by adapter",
        "sum by (engine, lora) (rate(joulescope_adapter_energy_joules_total[5m]))"
        " / sum by (engine, lora) (rate(joulescope_adapter_generated_tokens_total[5m]))",
    ),
    (
        "Who uses the energy: five tenants",
        "topk(5, sum by (tenant) (increase(joulescope_tenant_energy_joules_total[1h])))",
    ),
    (
        "Joules per request, by task class",
        "sum by (task) (rate(joulescope_task_energy_joules_total[5m]))"
        " / sum by (task) (rate(joulescope_task_requests_finished_total[5m]))",
    ),
    (
        "What one more token costs, of what tokens cost in the mean",
        "avg_over_time(joulescope_marginal_energy_per_output_token_joules[5m]) / on (engine)"
        " (sum by (engine) (rate(joulescope_attributed_energy_joules_total[5m]))"
        " / sum by (engine) (rate(joulescope_generated_tokens_total[5m])))",
    ),
    (
        "Efficiency index: what work costs, of what the same work used to cost",
        "rate(joulescope_baseline_actual_energy_joules_total[5m])"
        " / rate(joulescope_baseline_expected_energy_joules_total[5m])",
    ),
    ("Does the account add up?", "joulescope_conservation_residual_joules != 0"),
)

METERS = """\
## Two meters of the same thing

Most GPUs with an energy counter tell their power too. Each reading of power holds until the next, for 2 s at
most, and is integrated beside the counter, from one change of the counter to a later one. Both meters leave
out holes, resets and impossible values, so that the two sums always speak of the same time.
`joulescope_gpu_meters_ratio` is their ratio in the last 60 s, shown once 20 s of them could be
compared. Only the counter is accounted.

Many GPUs show power as a mean over the last second: after a change of load the power meter is half a second
late. That is 0.8 % of a minute for a step as large as the mean power, and less over a longer time. A ratio
that stays a few percent away from 1 means that one of the two meters is wrong. On A100 and A30 that may be
power alone: it covers 25 of every 100 ms, and a load that keeps step with that is seen in the same
moment again and again ([decision 17](decisions/0017-power-without-a-counter.md)).

Both may be wrong alike: a card may differ from an external meter by 5 %, in proportion. A factor that was
measured so is the setting [`calibration`](configuration.md#calibration). Counter and power are multiplied by
it once, so that it stands in every figure, and `joulescope_gpu_calibration_ratio` shows it. The ratio of the
two does not change. A trace keeps the readings as shown, and the factor beside them.

A GPU without a counter is measured by integrating power, each reading holding until the next, for 2 s at
most; `joulescope_gpu_info` then says `energy_source="power"`, and so does every request. Such a figure cannot
see what happens between two readings, and comes as late as the driver's averaging. Which of the driver's
readings is taken, how often, and how wrong it may be: [validation](validation.md#how-true-the-meters-are).
"""

REQUESTS = f"""\
## Figures of a request

A finished request has figures of its own: a line of the request log, one JSON object a line
([`request_log`](configuration.md#request_log)), and the attributes of a span, below. They have no labels in
the metrics, since requests are without number.

`attributed_low_joules` and `attributed_high_joules` (in the span `joulescope.request.energy_low` and
`…energy_high`) bound the interval that is meant to hold the request's true part of what the meter measured in
{INTERVAL_LEVEL * 100:.0f} of 100 cases; `marginal_low_joules` and `marginal_high_joules` do so for
`marginal_joules`. It is the error of the division alone. The meter's own gain error, about 5 % of a card and
the same for all requests on it, is not in it. Where the error is not known both are `null`, and absent in the
span.

`avoided_joules` is what its prefix-cache hits would have cost to compute: an estimate of the model, never
measured and part of no sum. `energy_source` says which meter its joules come from: `counter`, the driver's
energy counter; `power`, integrated from power readings; `mig_gpm`, none: they are a share of what the whole
GPU drew, split among its [MIG instances](mig.md) by performance counters; `mixed`, some from each. The error
of such a split is not known, so the intervals of these requests are not stated.
"""

OPENTELEMETRY = f"""\
## OpenTelemetry

How to switch it on, and what becomes of spans that a collector does not take:
[OpenTelemetry](opentelemetry.md).

With OTLP metrics the whole table is sent, but for the pages of metrics that were made. Metrics that have a
convention go under it, with `hw.id`, the GPU, and `hw.type=gpu`; they have no second name:

{{conventions}}
All others go as `joulescope.…`: without `joulescope_`, `_total` and the unit, as in `joulescope.idle_energy`.
The label `gpu` is `hw.id` there too; other labels are `joulescope.…`, as in `joulescope.engine`. Counters are
sums that only grow; gauges of bytes, requests and sessions are sums too (up-down counters), all others are
gauges. Histograms have the buckets of the Prometheus page, and their exemplars.

Each finished request becomes one span `{SPAN_NAME}`: a child of the span that came with the request, with
its trace id and sampling decision, or else the root of a new trace. Its phases are spans below it, or events,
by the setting [`otlp_phases`](configuration.md#otlp_phases).
"""


_LARGEST = snapshot_of(LARGEST)


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return _row(head) + "|" + "---|" * len(head) + "\n" + "".join(map(_row, rows))


def _metric_row(metric: Metric) -> tuple[str, ...]:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    series = str(series_of(metric, _LARGEST) or "")
    return f"`{metric.name}`", metric.kind.value, metric.unit, labels, series, metric.help


def render() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for title, metrics in SECTIONS:
        table = _table(("metric", "type", "unit", "labels", "series", "meaning"), map(_metric_row, metrics))
        parts.append(f"## {title}\n\n{table}")
    parts.append(
        "CPU time, memory and file descriptors of the sidecar are the usual `process_…` metrics of the "
        "Prometheus client.\n"
    )
    parts += [render_series(), LABELLED]
    queries = _table(("question", "expression"), ((question, f"`{query}`") for question, query in QUERIES))
    parts.append(f"## Questions in PromQL\n\n{queries}")
    parts += [METERS, REQUESTS]
    return "\n".join([*parts, *_opentelemetry()])


def _opentelemetry() -> list[str]:
    """Names of metrics, spans and attributes where they are not those of Prometheus."""
    named = [
        (f"`{metric.name}`", f"`{otel_name(metric)}`", otel_kind(metric), otel_unit(metric))
        for metric in METRICS
        if metric.otel_name
    ]
    conventions = _table(("metric", "OpenTelemetry", "instrument", "unit"), named)
    attributes = [(f"`{row.name}`", row.unit.strip("{}"), row.help) for row in SPAN_ATTRIBUTES]
    phases = [(f"`{PHASE_NAME.format(phase=name)}`", text) for name, text in PHASES.items()]
    of_phases = {row.name: row for row in (*PHASE_ATTRIBUTES, *EVENT_ATTRIBUTES)}.values()
    return [
        OPENTELEMETRY.format(conventions=conventions),
        _table(("span attribute", "unit", "meaning"), attributes),
        _table(("span or event of a phase", "what it covers"), phases),
        _table(
            ("its attribute", "unit", "meaning"), [(f"`{row.name}`", row.unit, row.help) for row in of_phases]
        ),
    ]


if __name__ == "__main__":
    sys.stdout.write(render())
