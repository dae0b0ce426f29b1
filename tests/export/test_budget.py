"""The number of series: counted on the largest node that is planned for, and held to the budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from joulescope.attribution.tally import REQUEST_BOUNDS, TOKEN_BOUNDS
from joulescope.clock import SystemClock, WallAnchor
from joulescope.config import TABLE, Settings
from joulescope.daemon.answers import Answers
from joulescope.daemon.ledger_keeper import LedgerKeeper
from joulescope.export.budget import (
    BUDGET,
    EXPORTED,
    HISTOGRAM_BOUNDS,
    LARGEST,
    Node,
    growth,
    series_of,
    snapshot_of,
    total_series,
)
from joulescope.export.metrics import METRICS
from joulescope.export.otlp_resource import create_resource
from joulescope.export.otlp_spans import OtlpSpans
from joulescope.export.prometheus import Exposition
from joulescope.export.records import RequestLog
from joulescope.export.table_servers import SERVERS

LESS_THAN_ALL = {
    *(metric.name for metric in SERVERS),
    "joulescope_whole_gpu_energy_joules_total",
    "joulescope_mig_instance_info",
    "joulescope_records_rejected_total",
    "joulescope_gpu_module_power_watts",
}
"""What such a node need not have: servers without a hook, MIG instances, and anything to refuse."""


def test_the_largest_node_keeps_to_its_budget() -> None:
    """16 GPUs, 8 engines, 50 adapters, 50 tenants and 8 tasks: whoever adds a label that is too much fails
    here."""
    assert (LARGEST.gpus, LARGEST.engines, LARGEST.adapters, LARGEST.tenants) == (16, 8, 50, 50)
    assert LARGEST.tasks == 8
    assert 0.8 * BUDGET < total_series(METRICS, LARGEST) <= BUDGET


def test_nothing_is_left_out_of_the_count() -> None:
    """Each metric of the table has series there, and the page has just as many lines."""
    snapshot = snapshot_of(LARGEST)
    counts = {metric.name: series_of(metric, snapshot) for metric in METRICS}
    assert {name for name, count in counts.items() if not count} <= LESS_THAN_ALL
    page = Exposition(lambda: snapshot, process_metrics=False).render().body.decode()
    lines = [line for line in page.splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines)) == sum(counts.values())
    assert sum(len(family.samples) for family in parse_text(page)) == sum(counts.values())


def test_the_node_is_like_the_accounts() -> None:
    """As many buckets as the real histograms have, and as many names as the settings let through."""
    assert len(REQUEST_BOUNDS) == len(TOKEN_BOUNDS) == HISTOGRAM_BOUNDS
    assert Settings().max_label_values == LARGEST.adapters == LARGEST.tenants
    assert Settings().max_tasks == LARGEST.tasks


def test_what_a_task_class_costs_is_what_its_settings_say() -> None:
    """The help of ``max_tasks`` and the page of task classes name the series that each takes."""
    series = dict(growth(METRICS))["each task class of an engine"]
    page = Path(__file__).parents[2] / "docs" / "task-classes.md"
    assert f"Each costs {series} series" in TABLE["max_tasks"].help
    assert f"Each class costs {series} series an engine" in page.read_text(encoding="utf-8")


def test_the_exporters_count_what_the_node_tells() -> None:
    """With all of them on: request log, spans, ledger, and answers about single requests."""
    anchor = WallAnchor(0, 0)
    spans = OtlpSpans(anchor, create_resource({}), environ={})
    log = RequestLog("-", anchor)
    answers = Answers(SystemClock(), anchor, token=lambda: "t0ken")
    ledger = LedgerKeeper(Path("ledger"), SystemClock(), anchor)
    sinks = (log, spans, ledger, *answers.sinks)
    assert {sink.name: tuple(sink.counts()) for sink in sinks} == EXPORTED
    spans.close(0.0)


@pytest.mark.parametrize("node", [Node(0, 0), Node(3, 0), Node(5, 0), Node(4, 4, 7, 3), Node(2, 2, 60, 1, 5)])
def test_the_figures_of_the_page_make_up_any_node(node: Node) -> None:
    """What each thing adds, times how many there are: engines on one GPU each, with names and ``other``."""
    adds = dict(growth(METRICS))
    bare = adds["a sidecar and its host alone"] + node.gpus * adds["each GPU"]
    bare += node.engines * adds["each engine, on one GPU"]
    assert total_series(METRICS, replace(node, adapters=0, tenants=None, tasks=None)) == bare
    one = total_series(METRICS, replace(node, adapters=1, tenants=1, tasks=1))
    more = adds["each adapter of an engine"] * max(node.adapters - 1, 0)
    more += adds["each tenant of an engine"] * max((node.tenants or 1) - 1, 0)
    more += adds["each task class of an engine"] * max((node.tasks or 1) - 1, 0)
    named = replace(node, adapters=max(node.adapters, 1), tenants=node.tenants or 1, tasks=node.tasks or 1)
    assert total_series(METRICS, named) == one + node.engines * more
