"""The metric table, and the page made from it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from joulescope.export.metric import MAX_OPEN_LABEL_VALUES, Kind, Point, per_label
from joulescope.export.metrics import METRICS, RECORD_TYPES
from joulescope.export.metrics_page import QUERIES, render
from joulescope.export.prometheus import BASE_UNITS
from joulescope.export.table_factors import MULTIPLIERS
from joulescope.export.table_servers import SERVERS
from joulescope.hook import wire
from joulescope.host_model import HostTotals
from joulescope.model import HistogramState, Snapshot
from joulescope.surroundings_model import Multipliers
from tests.export.samples import GPU_A, GPU_B, engine_a, rich_snapshot

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
CARBON = tuple(
    f"grid_carbon_intensity_{name}" for name in ("grams_per_joule", "age_seconds", "refresh_failures_total")
)
FORBIDDEN_LABELS = {"pod", "namespace", "container", "instance", "job", "le", "request_id", "pid"}


def points(name: str, snapshot: Snapshot) -> dict[tuple[str, ...], float]:
    """Values of one metric by its labels."""
    metric = next(metric for metric in METRICS if metric.name == name)
    found = {}
    for point in metric.read(snapshot):
        assert not isinstance(point.value, HistogramState)
        found[point.labels] = point.value
    return found


def test_names_say_what_they_are() -> None:
    """Names are unique, prefixed, carry their unit, and end as their type demands."""
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"joulescope_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert metric.name.endswith("_info") == (metric.kind is Kind.INFO)
        if metric.unit in BASE_UNITS:
            assert metric.family.endswith("_" + metric.unit)


def test_labels_are_few_and_free_of_request_identity() -> None:
    """No label clashes with those that Prometheus sets, and none identifies a request."""
    assert not FORBIDDEN_LABELS & {label for metric in METRICS for label in metric.labels}


def test_energy_is_never_a_gauge_but_residuals_and_a_price() -> None:
    """Joules come as counters, so that watts and joules per token can be rates over any window. The price of
    the next token is no amount of joules that anything drew, and what has no task class yet goes to one."""
    gauges = [metric.name for metric in METRICS if metric.unit == "joules" and metric.kind is Kind.GAUGE]
    assert gauges == [
        "joulescope_conservation_residual_joules",
        "joulescope_host_conservation_residual_joules",
        "joulescope_marginal_energy_per_output_token_joules",
        "joulescope_task_undecided_energy_joules",
    ]


def test_points_match_their_labels_and_never_repeat() -> None:
    """Each point has a value for each label, and no two points of a metric share all of them."""
    for metric in METRICS:
        found = [point.labels for point in metric.read(rich_snapshot())]
        assert len(set(found)) == len(found)
        assert all(len(labels) == len(metric.labels) for labels in found)


def test_the_parts_sum_to_the_measured_energy() -> None:
    """For each GPU the four exported parts add up to its measured energy: conservation can be queried."""
    snapshot = rich_snapshot()
    for gpu in (GPU_A, GPU_B):
        parts = sum(
            value
            for name in ("attributed", "idle", "overhead", "unattributed")
            for labels, value in points(f"joulescope_{name}_energy_joules_total", snapshot).items()
            if gpu in labels
        )
        assert parts == points("joulescope_measured_energy_joules_total", snapshot)[(gpu,)]


def test_the_hosts_parts_sum_to_its_measured_energy() -> None:
    """For each domain the exported parts add up, and none of it is among the GPUs' joules."""
    snapshot = rich_snapshot()
    for domain in ("package-0", "dram-0"):
        parts = sum(
            value
            for name in ("attributed", "other", "idle", "unattributed")
            for labels, value in points(f"joulescope_host_{name}_energy_joules_total", snapshot).items()
            if domain in labels
        )
        assert parts == points("joulescope_host_measured_energy_joules_total", snapshot)[(domain,)]
    without = replace(snapshot, host=HostTotals())
    for metric in METRICS:
        if not metric.name.startswith("joulescope_host_"):
            assert list(metric.read(without)) == list(metric.read(snapshot))
        else:
            assert not list(metric.read(without))


def test_what_the_host_does_not_know_is_absent() -> None:
    """A domain never seen quiet has no idle power, and an engine out of sight no CPU time and no joules."""
    snapshot = rich_snapshot()
    assert points("joulescope_host_idle_power_watts", snapshot) == {("package-0",): 60.5}
    assert points("joulescope_host_engine_cpu_seconds_total", snapshot) == {("llama-0",): 40.25}
    assert points("joulescope_host_engine_visible", snapshot) == {("llama-0",): 1, ("odd-1",): 0}
    assert points("joulescope_host_sensor_up", snapshot) == {("package-0",): 1, ("dram-0",): 0}


def test_absent_is_not_zero() -> None:
    """A silent sensor or an engine that left has no gauge, though the snapshot holds its last word."""
    snapshot = rich_snapshot()
    for name in ("gpu_meters_ratio", "compared_power_energy_joules_total"):
        assert set(points(f"joulescope_{name}", snapshot)) == {(GPU_A,)}
    for name in ("power_watts", "memory_used_bytes", "sm_utilization_ratio"):
        assert set(points(f"joulescope_gpu_{name}", snapshot)) == {(GPU_A,)}
    names = ("requests_running", "requests_waiting", "kv_cache_usage_ratio", "batch_tokens")
    for name in (*names, "marginal_energy_per_output_token_joules"):
        assert set(points(f"joulescope_{name}", snapshot)) == {("llama-0",)}
    assert set(points("joulescope_accounted_until_timestamp_seconds", snapshot)) == {(GPU_A,)}


def test_a_reading_is_stale_once_its_sensor_is_down() -> None:
    """Even if a ledger left the last reading in place, a sensor that is down shows no power."""
    gpu = rich_snapshot().gpus[0]
    snapshot = replace(rich_snapshot(), gpus=(replace(gpu, up=False),))
    assert points("joulescope_gpu_power_watts", snapshot) == {}
    assert points("joulescope_gpu_meters_ratio", snapshot) == {}
    assert points("joulescope_sensor_up", snapshot) == {(GPU_A,): 0}


def test_an_empty_sidecar_exports_only_itself() -> None:
    """Before any GPU or engine is met, no energy series exists, and no lag is claimed."""
    snapshot = Snapshot(time_ns=0, wall_seconds=0.0)
    named = {metric.name for metric in METRICS if list(metric.read(snapshot))}
    assert "joulescope_build_info" in named
    assert not [name for name in named if "energy" in name or "lag" in name]


def test_multipliers_are_absent_unless_known() -> None:
    """Nothing configured has no series; a constant has no age; a figure too old has an age and no value."""
    names = ("facility_pue_ratio", "electricity_price_per_joule", *CARBON)
    assert [points(f"joulescope_{name}", Snapshot(0, 0.0)) for name in names] == [{}] * len(names)
    constant = Snapshot(0, 0.0, multipliers=Multipliers(carbon_grams_per_joule=0.5))
    assert [points(f"joulescope_{name}", constant) for name in CARBON] == [{(): 0.5}, {}, {}]
    old = Snapshot(0, 0.0, multipliers=Multipliers(carbon_age_seconds=9e4, carbon_failures={"status": 3}))
    value, age, failures = (points(f"joulescope_{name}", old) for name in CARBON)
    assert (value, age, failures[("status",)], failures[("timeout",)]) == ({}, {(): 9e4}, 3, 0)


def test_a_server_that_is_down_has_no_figures() -> None:
    """Of a page that cannot be had only that is told, and why; the other server's figures stay."""
    snapshot, (up, down) = rich_snapshot(), [(server.server,) for server in rich_snapshot().servers]
    for metric in SERVERS:
        assert (metric.name, {point.labels[:1] for point in metric.read(snapshot)}) in (
            (metric.name, {up}),
            ("joulescope_scraped_server_up", {up, down}),
            ("joulescope_scraped_resets_total", {up, down}),
            ("joulescope_scraped_failures_total", {up, down}),
        )
    failures = points("joulescope_scraped_failures_total", snapshot)
    assert (failures[(*down, "unreachable")], failures[(*down, "timeout")]) == (40, 0)


def test_joules_have_no_multiplier_in_them() -> None:
    """Whatever is configured of the place and the grid, every other figure stays as it was."""
    rows = [metric for metric in METRICS if metric not in MULTIPLIERS]
    plain = replace(rich_snapshot(), multipliers=Multipliers())
    for metric in rows:
        assert list(metric.read(rich_snapshot())) == list(metric.read(plain))


def test_known_label_values_start_at_zero() -> None:
    """An engine that just connected shows each of its GPUs and phases at 0, so that rates see the start."""
    fresh = replace(engine_a(), attributed_joules={})
    snapshot = replace(rich_snapshot(), engines=(fresh,))
    assert points("joulescope_attributed_energy_joules_total", snapshot) == {
        ("llama-0", GPU_A, "prefill"): 0.0,
        ("llama-0", GPU_A, "decode"): 0.0,
    }


def test_open_labels_are_bounded() -> None:
    """A peer that invents label values fills a fixed number of series; the rest is summed as ``other``."""
    values = {f"odd{number}": 1 for number in range(MAX_OPEN_LABEL_VALUES + 5)}
    found = list(per_label((), {"stop": 2, "other": 3, **values}, ("stop",)))
    assert found[0] == Point(("stop",), 2)
    assert found[-1] == Point(("other",), 8)
    assert len(found) == MAX_OPEN_LABEL_VALUES + 2


def test_record_types_are_those_of_the_wire() -> None:
    """The types shown from 0 on are types that the protocol has."""
    tags = {record.__struct_config__.tag for record in wire.AnyRecord.__args__}
    assert set(RECORD_TYPES) <= tags


def test_the_page_is_made_from_the_table() -> None:
    """``docs/metrics.md`` is what ``python -m joulescope.export.metrics_page`` writes now."""
    assert PAGE.read_text(encoding="utf-8") == render()


def test_the_queries_of_the_page_name_real_metrics() -> None:
    """Every metric in an example query stands in the table."""
    named = {name for _, query in QUERIES for name in re.findall(r"joulescope_\w+", query)}
    assert named
    assert named <= {metric.name for metric in METRICS}
