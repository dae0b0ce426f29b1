"""Counters as Prometheus sees them, over whole lives of engines and GPUs: none falls, and none vanishes."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulescope.attribution.policy import Policy
from joulescope.export.metric import Kind
from joulescope.export.metrics import METRICS
from joulescope.model import HistogramState, Snapshot
from tests.attribution.test_labels import ADAPTERS, IDS, RULES, name
from tests.attribution.test_properties import policies, run, worlds
from tests.examples import examples


def counters(snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    """Every series of a counter or a histogram, by the name of its metric and its labels."""
    found: dict[tuple[str, ...], float] = {}
    for metric in METRICS:
        for point in metric.read(snapshot):
            if isinstance(point.value, HistogramState):
                for bound, count in enumerate(point.value.counts):
                    found[(metric.name, *point.labels, str(bound))] = count
                found[(metric.name, *point.labels, "sum")] = point.value.total
            elif metric.kind is Kind.COUNTER:
                found[(metric.name, *point.labels)] = point.value
    return found


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    world=worlds(),
    names=st.lists(st.tuples(st.sampled_from(ADAPTERS), st.sampled_from(IDS)), min_size=1, max_size=9),
    policy=policies(),
)
def test_no_counter_falls_or_vanishes(
    world: list[object], names: list[tuple[str, str]], policy: Policy
) -> None:
    """From scrape to scrape every series of the table's counters is there again, and no smaller."""
    name(world, names)
    before: dict[tuple[str, ...], float] = {}
    for _, snapshot, _ in run(world, replace(policy, labels=RULES)):
        after = counters(snapshot)
        assert {key: after.get(key) for key, value in before.items() if after.get(key, -1.0) < value} == {}
        before = after
