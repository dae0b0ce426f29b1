"""docs/multipliers.md: its settings load, its rules and queries run in the real promtool."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from joulescope.config.load import load
from joulescope.export.metrics import METRICS
from tests.promtool import expectations_missed, queries_of

PAGE = (Path(__file__).parents[1] / "docs" / "multipliers.md").read_text(encoding="utf-8")
SETTINGS, RULES = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
QUERIES = queries_of(PAGE)

TARGET = '{job="j",instance="a"}'
SERIES = {
    f"joulescope_measured_energy_joules_total{TARGET}": "0+9000x3100",  # 300 W
    f"joulescope_facility_pue_ratio{TARGET}": "1.25x3100",
    f"joulescope_grid_carbon_intensity_grams_per_joule{TARGET}": "0.0001x1560 stale",
    'joulescope_electricity_price_per_joule{job="j",instance="a",currency="EUR"}': "0.0000001x3100",
    'joulescope_measured_energy_joules_total{job="j",instance="no-factors"}': "0+9000x3100",
}
"""25 hours of a GPU at 300 W. After 13 hours the intensity is not known any more."""

ENGINE_SERIES = {
    'joulescope_attributed_energy_joules_total{job="j",instance="a",engine="e",phase="decode"}': "0+6000x20",
    'joulescope_attributed_energy_joules_total{job="j",instance="a",engine="e",phase="prefill"}': "0+3000x20",
    'joulescope_generated_tokens_total{job="j",instance="a",engine="e"}': "0+30000x20",
    f"joulescope_idle_energy_joules_total{TARGET}": "0+1800x20",
    f"joulescope_facility_pue_ratio{TARGET}": "1.25x20",
    f"joulescope_grid_carbon_intensity_grams_per_joule{TARGET}": "0.0001x20",
    'joulescope_electricity_price_per_joule{job="j",instance="a",currency="EUR"}': "0.0000001x20",
}


def test_the_settings_of_the_page_load(tmp_path: Path) -> None:
    """The example is a configuration that the sidecar takes."""
    path = tmp_path / "settings.yaml"
    path.write_text(SETTINGS)
    settings, _ = load({}, {}, str(path))
    assert (settings.pue, settings.currency, settings.carbon_header) == (1.25, "EUR", "auth-token")


def test_every_metric_of_the_page_exists() -> None:
    """Names in prose, queries and rules stand in the table of metrics, or are recorded by the rules."""
    named = set(re.findall(r"(?<!:)joulescope_\w+", PAGE))
    assert len(QUERIES) == 9
    assert named <= {metric.name for metric in METRICS}
    recorded = set(re.findall(r"instance:\w+:\w+", PAGE))
    assert recorded == set(re.findall(r"record: (\S+)", RULES))


def test_the_rules_sum_up_a_day(tmp_path: Path) -> None:
    """300 W for a day at PUE 1.25 are 9 kWh; half a day without intensity adds no grams and is told."""
    expected = {
        QUERIES["Grams of the last day"]: [(TARGET, 0.0375 * 30 * 1440)],
        QUERIES["How much of the day that was, 0 to 1"]: [(TARGET, 0.5)],
        QUERIES["Money of the last day, by currency"]: [('{currency="EUR"}', 3.75e-5 * 30 * 2880)],
        "instance:joulescope_facility_power:watts": [(TARGET, 375.0)],  # not that without factors
    }
    assert expectations_missed(tmp_path, RULES, SERIES, expected, "1d1h15s") == ""


@pytest.mark.parametrize(
    ("question", "labels", "value"),
    [
        ("Watts of the facility, by engine", '{job="j",instance="a",engine="e"}', 375.0),
        (
            "Grams of CO2e per 1000 output tokens, of the GPUs alone",
            '{job="j",instance="a",engine="e"}',
            0.03,
        ),
        (
            "Price of a million output tokens, of the GPUs alone",
            '{job="j",instance="a",currency="EUR"}',
            0.03,
        ),
        ("What idle GPUs cost, an hour", '{job="j",instance="a",currency="EUR"}', 0.027),
        ("The intensity in gCO2e/kWh", TARGET, 360.0),
    ],
)
def test_the_queries_of_the_page_have_the_right_answer(
    tmp_path: Path, question: str, labels: str, value: float
) -> None:
    """Each query gives, for known series, the figure that one works out by hand."""
    assert (
        expectations_missed(tmp_path, RULES, ENGINE_SERIES, {QUERIES[question]: [(labels, value)]}, "10m")
        == ""
    )


def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    """promtool does look: another figure is a failure."""
    query = QUERIES["The intensity in gCO2e/kWh"]
    assert "FAILED" in expectations_missed(tmp_path, RULES, ENGINE_SERIES, {query: [(TARGET, 361.0)]}, "10m")
