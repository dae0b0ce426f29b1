"""The check of expressions: it lets right ones pass, and names what is wrong with each of the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from joulescope.export.metrics import METRICS
from tools.queries import check_expression, known_metrics, labels_of, main, plain, scraped_metrics

KNOWN = {**scraped_metrics(), "engine:joulescope_power:watts": frozenset({"job", "instance", "engine"})}
ENERGY = "joulescope_attributed_energy_joules_total"
JOIN = "group_left (model) joulescope_engine_info"


@pytest.mark.parametrize(
    "expression",
    [
        f"sum by (cluster, engine) (rate({ENERGY}[5m]))",
        f'rate({ENERGY}{{phase="decode", instance=~"a|b", cluster="x"}}[5m])',
        f"sum by (job, instance, engine) (rate({ENERGY}[5m])) * on (job, instance, engine) {JOIN}",
        f"sum by (model) (sum by (job, instance, engine) (rate({ENERGY}[5m]))"
        f" * on (job, instance, engine) {JOIN})",
        'joulescope_engine_info{model="x"}',
        f"count({ENERGY}) + count(up == 0)",
        f"absent({ENERGY})",
        "time() - joulescope_snapshot_timestamp_seconds > 60",
        "max_over_time((joulescope_gpu_power_watts / joulescope_gpu_power_limit_watts)[1h:1m])",
        "histogram_quantile(0.9, sum by (le) (rate(joulescope_request_energy_joules_bucket[5m])))",
        "engine:joulescope_power:watts > 100 unless on (engine) joulescope_engine_up == 0",
        f"topk by (engine) (5, rate({ENERGY}[5m]))",
        f"increase({ENERGY}[5m]) > ignoring (phase, gpu) group_left () joulescope_engine_up",
        "joulescope_sensor_up * on (job, instance, gpu) group_right () joulescope_engine_gpu_info",
        'label_replace(up, "x", "$1", "instance", "(.*)")',
        "joulescope_engine_up or joulescope_sensor_up",
        "joulescope_gpu_power_watts * on (gpu) group_left (parent) joulescope_mig_instance_info",
        "3600 * (1 + 2) * joulescope_gpu_power_watts",
        "avg_over_time(joulescope_gpu_power_watts[5m])",
        "(process_resident_memory_bytes > 1e9) and on (job, instance) (up == 1)",
    ],
)
def test_a_right_expression_passes(expression: str) -> None:
    """No false alarm on forms that rules and dashboards use."""
    assert check_expression(expression, KNOWN) == []


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("sum(", "does not parse"),
        ("rate(joulescope_energy_total[5m])", "joulescope_energy_total is no metric"),
        ('{job="x"}', "names no metric"),
        ('joulescope_engine_up{model="x"}', "joulescope_engine_up{} has no label model"),
        (f"sum by (model) (rate({ENERGY}[5m]))", "sum() reads has no label model"),
        (f"sum without (tenant) (rate({ENERGY}[5m]))", "has no label tenant"),
        (ENERGY, "read without rate()"),
        (f"sum({ENERGY}) / 2", "read without rate()"),
        (f"count_over_time({ENERGY}[5m])", "read without rate()"),
        (f"count({ENERGY} > 5)", "read without rate()"),
        (f"deriv({ENERGY}[5m])", "deriv() of the counter"),
        ("rate(joulescope_gpu_power_watts[5m])", "rate() of the gauge joulescope_gpu_power_watts"),
        ("rate(engine:joulescope_power:watts[5m])", "rate() of the gauge engine:joulescope_power:watts"),
        (f"rate(sum(rate({ENERGY}[5m]))[5m:1m])", "rate() of an expression"),
        (f"rate({ENERGY}[5m]) / rate(joulescope_generated_tokens_total[5m])", "never match"),
        (f"sum(rate({ENERGY}[5m])) / joulescope_engine_up", "never match"),
        (f"rate({ENERGY}[5m]) / ignoring (gpu) joulescope_engine_up", "one has no phase"),
        ("joulescope_engine_up * on (gpu) joulescope_sensor_up", "the left of * has no label gpu"),
        ("joulescope_sensor_up * on (engine) joulescope_engine_up", "the left of * has no label engine"),
        (f"rate({ENERGY}[5m]) * on (engine) {JOIN}", "joined without instance, job"),
        (
            f"rate({ENERGY}[5m]) * on (job, instance, engine) group_left (modell) joulescope_engine_info",
            "has no label modell",
        ),
        ("engine:joulescope_power:watts{cluster='x'}", "has no label cluster"),
        ("histogram_quantile(0.9, sum(rate(joulescope_request_energy_joules_bucket[5m])))", "no label le"),
    ],
)
def test_a_wrong_expression_is_named(expression: str, words: str) -> None:
    """Each kind of mistake has its message."""
    assert words in "\n".join(check_expression(expression, KNOWN))


def test_an_alert_may_not_depend_on_classic_histograms() -> None:
    """What a panel may show, an alert may not read."""
    expression = "rate(joulescope_request_energy_joules_sum[5m]) > 1"
    assert check_expression(expression, KNOWN) == []
    (problem,) = check_expression(expression, KNOWN, alert=True)
    assert "native histograms" in problem


def test_labels_follow_the_expression() -> None:
    """Aggregation, matching and joins decide what labels a result has."""
    joined = f"sum by (job, instance, engine) (rate({ENERGY}[5m])) * on (job, instance, engine) {JOIN}"
    assert labels_of(joined, KNOWN) == {"job", "instance", "engine", "model"}
    assert labels_of("sum(up)", KNOWN) == frozenset()
    assert labels_of('count_values("v", up)', KNOWN) == frozenset()
    assert labels_of('count_values by (job) ("v", up)', KNOWN) == {"job", "v"}
    assert labels_of("joulescope_sensor_up * on (gpu) joulescope_gpu_power_watts", KNOWN) == {"gpu"}
    assert labels_of("sum by (engine) (joulescope_engine_up) or vector(0)", KNOWN) == {"engine"}


@pytest.mark.parametrize(
    ("panel", "expression"),
    [
        ('rate(a{e=~"$engine"}[$__rate_interval])', 'rate(a{e=~"x"}[5m])'),
        ('a{e=~"${engine:regex}", f="[[gpu]]"}', 'a{e=~"x", f="x"}'),
        ("topk($top, a)", "topk(1, a)"),
        ("max_over_time(a[$__range:$step])", "max_over_time(a[1h:5m])"),
        ("increase(a[$__range]) / $__range_s", "increase(a[1h]) / 1"),
        ("a offset $shift", "a offset 5m"),
        ('label_replace(a, "b", "$1", "c", "(.*)")', 'label_replace(a, "b", "$1", "c", "(.*)")'),
    ],
)
def test_variables_of_grafana_give_way(panel: str, expression: str) -> None:
    """What is left is PromQL of the same form."""
    assert plain(panel) == expression


def test_every_metric_of_the_table_is_known() -> None:
    """Histograms by their three series, all others by their name."""
    known = scraped_metrics()
    for metric in METRICS:
        names = (
            [metric.name]
            if metric.name in known
            else [f"{metric.name}_{part}" for part in ("bucket", "sum", "count")]
        )
        assert all(set(metric.labels) <= known[name] for name in names)


def test_recorded_series_have_the_labels_that_their_rules_leave(tmp_path: Path) -> None:
    """Rules may build on those before them; labels that a rule sets are there too."""
    (tmp_path / "a.rules.yaml").write_text(
        "groups: [{name: a, rules: ["
        "{record: 'a:b:c', expr: 'sum by (job, engine) (joulescope_engine_up)', labels: {window: 5m}},"
        "{record: 'a:b:d', expr: 'sum by (engine) (a:b:c)'}, {alert: X, expr: 'up == 0'}]}]"
    )
    known = known_metrics(tmp_path)
    assert (known["a:b:c"], known["a:b:d"]) == ({"job", "engine", "window"}, {"engine"})


def test_the_program_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit codes: nothing wrong, something wrong, nothing given."""
    assert (main(["up"]), main(["down"]), main([])) == (0, 1, 2)
    assert "down is no metric" in capsys.readouterr().out
