"""What the page of metrics says of the number of series, and of the labels that others fill."""

from __future__ import annotations

from joulescope.export.budget import BUDGET, LARGEST, growth
from joulescope.export.metric import MAX_OPEN_LABEL_VALUES
from joulescope.export.metrics import METRICS

_SERIES = f"""\
## How many series

The column *series* of the tables above is what each metric has on the largest node that is planned for:
{LARGEST.gpus} GPUs and {LARGEST.engines} engines, each of which serves {LARGEST.adapters} LoRA adapters and
{LARGEST.tenants} tenants and tells {LARGEST.tasks} task classes apart, on a host whose energy is measured,
with all that such a GPU can tell. Servers without a hook and MIG instances come on top. The budget of such a
node is {BUDGET:,} series; a test fails when the table goes beyond it.

No label grows without bound, whatever engines and clients send. Adapters and tenants get series of their own
up to [`max_label_values`](configuration.md#max_label_values) on each engine, besides those that
[`adapters`](configuration.md#adapters) and [`tenants`](configuration.md#tenants) list; the first to come get
them, and who has one keeps it while the sidecar runs. Task classes likewise, up to
[`max_tasks`](configuration.md#max_tasks) besides [`tasks`](configuration.md#tasks): fewer, since each has a
histogram. All others are summed as `other`, so that no joule is lost, and
`joulescope_label_values_refused_total` counts their names. Any other label that an engine feeds (a finish
reason, a type of record) takes at most {MAX_OPEN_LABEL_VALUES} values beyond the known ones, and then
`other`. Request ids are in no label.

| what there is | series |
|---|---|
"""

LABELLED = """\
## Adapters, tenants, tasks and models

Each joule that is attributed on an engine is in exactly one series of
`joulescope_adapter_energy_joules_total`, as soon as it is attributed and not when its request ends: with
`lora="base"` where the request has no adapter. The same joules stand in
`joulescope_attributed_energy_joules_total` by GPU and, if tenants are told apart, in
`joulescope_tenant_energy_joules_total`. If [task classes](task-classes.md) are told apart, they stand in
`joulescope_task_energy_joules_total` too, or in `joulescope_task_undecided_energy_joules` while the class
of a request is not decided. They are views of the same: sum over one of them, never over two. There is
no series by adapter *and* tenant, and none by adapter and GPU: they would multiply.

Tenants are off by default. vLLM's scheduler sees no HTTP headers, but the `X-Request-Id` of a client is part
of the id that it gives a request. With [`tenant_from`](configuration.md#tenant_from) `request_id` the tenant
is what stands before a tilde in it, as in `acme~7f3c`, or what
[`tenant_pattern`](configuration.md#tenant_pattern) finds. Who may send that header may name any tenant: let a
gateway write it, and refuse what clients send, before money depends on it. vLLM's Responses API does not use
the header, so its requests are of no tenant (`none`). With `tenant_from` `lora` the adapter stands for the
tenant.

The model is a label of `joulescope_engine_info` and of nothing else. A join brings it, and whatever else is
known of an engine, to any series by `engine`; the questions below show how.
"""


def render_series() -> str:
    """The section on the number of series."""
    return _SERIES + "".join(f"| {what} | {count:,} |\n" for what, count in growth(METRICS))
