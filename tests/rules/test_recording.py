"""What the recording rules compute, in the real promtool, over sidecars of several clusters."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.promtool import RULES, expectations_missed

TEXT = (RULES / "joulescope.rules.yaml").read_text()

SAMPLES = 240
"""Two hours of them: a rate over an hour wants an hour of them."""

pytestmark = pytest.mark.real


def _sidecar(target: str, gpu: str, scale: float, model: str, unit: str = "token") -> dict[str, str]:
    """A GPU at ``scale`` times 300 W under one engine with the same name everywhere."""

    def rising(name: str, per_second: float, labels: str = "") -> tuple[str, str]:
        return f"{name}{{{target}{labels}}}", f"0+{per_second * scale * 30:g}x{SAMPLES}"

    def level(name: str, value: float, labels: str = "") -> tuple[str, str]:
        return f"{name}{{{target}{labels}}}", f"{value:g}x{SAMPLES}"

    engine, on_gpu = ', engine="e"', f', gpu="{gpu}"'
    info = f'{engine}, model="{model}", served_model="s", unit="{unit}"'
    return dict(
        [
            rising("joulescope_measured_energy_joules_total", 300, on_gpu),
            rising("joulescope_idle_energy_joules_total", 60, on_gpu),
            rising("joulescope_attributed_energy_joules_total", 160, f'{engine}{on_gpu}, phase="decode"'),
            rising("joulescope_attributed_energy_joules_total", 80, f'{engine}{on_gpu}, phase="prefill"'),
            rising("joulescope_generated_tokens_total", 480, engine),
            rising("joulescope_computed_tokens_total", 800, f'{engine}, kind="prefill"'),
            rising("joulescope_computed_tokens_total", 480, f'{engine}, kind="decode"'),
            rising("joulescope_cached_tokens_total", 700, f'{engine}, cache="local"'),
            rising("joulescope_cached_tokens_total", 100, f'{engine}, cache="external"'),
            rising("joulescope_steps_total", 50, engine),
            rising("joulescope_wasted_energy_joules_total", 24, f'{engine}, reason="abort"'),
            rising("joulescope_wasted_energy_joules_total", 12, f'{engine}, reason="preemption"'),
            rising("joulescope_baseline_expected_energy_joules_total", 200, engine),
            rising("joulescope_baseline_actual_energy_joules_total", 240, engine),
            level("joulescope_engine_info", 1, info),
            level("joulescope_facility_pue_ratio", 1.25),
            level("joulescope_grid_carbon_intensity_grams_per_joule", 0.0001),
            level("joulescope_electricity_price_per_joule", 1e-7, ', currency="EUR"'),
        ]
    )


A = 'cluster="north", job="j", instance="a", pod="p-0"'
B = 'cluster="south", job="j", instance="a"'
C = 'cluster="south", job="j", instance="c"'
SERIES = {
    **_sidecar(A, "g1", 1, "m"),
    **_sidecar(B, "g2", 2, "m"),
    **_sidecar(C, "g3", 1, "image-maker", "image"),
}
"""Two clusters, in which an instance, an engine and a model have the same name; and one engine of images."""

ENGINE_A = f'{{{A}, engine="e"}}'
NORTH_M, SOUTH_M, SOUTH_I = (
    f'{{cluster="{cluster}", model="{model}"}}'
    for cluster, model in (("north", "m"), ("south", "m"), ("south", "image-maker"))
)
SOUTH = '{cluster="south"}'

EXPECTED: dict[str, dict[str, float]] = {
    "gpu:joulescope_measured_power_watts:rate5m": {f'{{{A}, gpu="g1"}}': 300},
    "gpu:joulescope_idle_energy:ratio_rate5m": {f'{{{A}, gpu="g1"}}': 0.2},
    "gpu:joulescope_idle_energy:ratio_rate1h": {f'{{{A}, gpu="g1"}}': 0.2},
    "engine_phase:joulescope_power_watts:rate5m": {
        f'{{{A}, engine="e", phase="decode"}}': 160,
        f'{{{A}, engine="e", phase="prefill"}}': 80,
    },
    "engine:joulescope_power_watts:rate5m": {ENGINE_A: 240},
    "model:joulescope_power_watts:rate5m": {NORTH_M: 240, SOUTH_M: 480, SOUTH_I: 240},
    "cluster:joulescope_measured_power_watts:rate5m": {SOUTH: 900},
    "cluster:joulescope_idle_energy:ratio_rate5m": {SOUTH: 0.2},
    "engine:joulescope_steps:rate5m": {ENGINE_A: 50},
    "engine:joulescope_steps:rate1h": {ENGINE_A: 50},
    "engine:joulescope_output_tokens:rate5m": {ENGINE_A: 480},
    "engine:joulescope_input_tokens:rate5m": {ENGINE_A: 1600},
    "engine:joulescope_energy_per_output_token_joules:ratio_rate5m": {ENGINE_A: 0.5},
    "engine:joulescope_energy_per_input_token_joules:ratio_rate5m": {ENGINE_A: 0.05},
    "engine:joulescope_energy_per_token_joules:ratio_rate5m": {ENGINE_A: 240 / 2080},
    "engine:joulescope_output_tokens_per_joule:ratio_rate5m": {ENGINE_A: 2},
    "model:joulescope_output_tokens:rate5m": {NORTH_M: 480, SOUTH_M: 960, SOUTH_I: 480},
    "model:joulescope_input_tokens:rate5m": {NORTH_M: 1600, SOUTH_M: 3200, SOUTH_I: 1600},
    "model:joulescope_energy_per_output_token_joules:ratio_rate5m": {SOUTH_M: 0.5},
    "model:joulescope_energy_per_input_token_joules:ratio_rate5m": {SOUTH_M: 0.05},
    "model:joulescope_energy_per_token_joules:ratio_rate5m": {SOUTH_M: 240 / 2080},
    "model:joulescope_output_tokens_per_joule:ratio_rate5m": {SOUTH_M: 2},
    "cluster:joulescope_output_tokens:rate5m": {'{cluster="north"}': 480, SOUTH: 960},  # images are no tokens
    "cluster:joulescope_output_tokens_per_joule:ratio_rate5m": {SOUTH: 960 / 900},
    "engine:joulescope_wasted_energy:ratio_rate15m": {f'{{{A}, engine="e", reason="abort"}}': 0.1},
    "engine:joulescope_wasted_energy:ratio_rate1h": {f'{{{A}, engine="e", reason="preemption"}}': 0.05},
    "cluster:joulescope_wasted_energy:ratio_rate1h": {
        '{cluster="south", reason="abort"}': 0.08,
        '{cluster="south", reason="preemption"}': 0.04,
    },
    "engine:joulescope_efficiency_index:ratio_rate5m": {ENGINE_A: 1.2},
    "engine:joulescope_efficiency_index:ratio_rate30m": {ENGINE_A: 1.2},
    "engine:joulescope_efficiency_index:ratio_rate1h": {ENGINE_A: 1.2},
    "engine:joulescope_efficiency_index:ratio_rate6h": {ENGINE_A: 1.2},
    "model:joulescope_efficiency_index:ratio_rate1h": {NORTH_M: 1.2, SOUTH_M: 1.2, SOUTH_I: 1.2},
    "instance:joulescope_facility_power:watts": {f"{{{A}}}": 375},
    "instance:joulescope_emissions:grams_per_second": {f"{{{A}}}": 0.0375},
    "instance:joulescope_electricity_cost:rate": {f'{{{A}, currency="EUR"}}': 3.75e-5},
    "instance:joulescope_gpu_emissions:grams_per_second": {f"{{{A}}}": 0.03},
    "instance:joulescope_gpu_electricity_cost:rate": {f'{{{A}, currency="EUR"}}': 3e-5},
    "engine:joulescope_facility_power:watts": {ENGINE_A: 300},
    "engine:joulescope_emissions:grams_per_second": {ENGINE_A: 0.03},
    "engine:joulescope_electricity_cost:rate": {f'{{{A}, engine="e", currency="EUR"}}': 3e-5},
    "engine:joulescope_gpu_emissions:grams_per_second": {ENGINE_A: 0.024},
    "engine:joulescope_gpu_electricity_cost:rate": {f'{{{A}, engine="e", currency="EUR"}}': 2.4e-5},
}
"""Of each recorded series some samples, by labels."""


def _selector(name: str, samples: dict[str, float]) -> str:
    """Those of its series that are looked at: of one cluster where the samples are of one."""
    clusters = {label for label in ("north", "south") for labels in samples if f'cluster="{label}"' in labels}
    matchers = [f'cluster=~"{"|".join(sorted(clusters))}"']
    for label in ("model", "reason"):
        values = {
            value
            for value in ("m", "image-maker", "abort", "preemption")
            for labels in samples
            if f'{label}="{value}"' in labels
        }
        if values:
            matchers.append(f'{label}=~"{"|".join(sorted(values))}"')
    return f"{name}{{{', '.join(matchers)}}}"


def test_every_recorded_series_has_its_figure(tmp_path: Path) -> None:
    """Sums over sidecars keep clusters apart, ratios come from sums, images count as no tokens."""
    expected = {_selector(name, samples): list(samples.items()) for name, samples in EXPECTED.items()}
    assert expectations_missed(tmp_path, TEXT, SERIES, expected, "2h") == ""


def test_every_rule_is_looked_at() -> None:
    """No recorded series is left out above."""
    recorded = {line.split("record: ")[1] for line in TEXT.splitlines() if "record: " in line}
    assert recorded == set(EXPECTED)


def test_without_the_label_cluster_everything_is_one(tmp_path: Path) -> None:
    """Sums of a cluster have no label then, and joins work as well."""
    series = {
        **_sidecar('job="j", instance="a"', "g1", 1, "m"),
        **_sidecar('job="j", instance="b"', "g2", 2, "m"),
    }
    expected = {
        "cluster:joulescope_measured_power_watts:rate5m": [("{}", 900.0)],
        "model:joulescope_power_watts:rate5m": [('{model="m"}', 720.0)],
        'engine:joulescope_emissions:grams_per_second{instance="b"}': [
            ('{job="j", instance="b", engine="e"}', 0.06)
        ],
    }
    assert expectations_missed(tmp_path, TEXT, series, expected, "2h") == ""


def test_nothing_is_divided_by_zero(tmp_path: Path) -> None:
    """Of an engine at rest there are watts and no ratios; what is not known leads to no figure."""
    series = {name: f"5x{SAMPLES}" for name in _sidecar(A, "g1", 1, "m") if "_total" in name}
    ratios = [name for name in EXPECTED if ":ratio_" in name]
    expected: dict[str, list[tuple[str, float]]] = {name: [] for name in ratios}
    expected |= {name: [] for name in EXPECTED if name.startswith(("model:", "instance:"))}
    expected["engine:joulescope_power_watts:rate5m"] = [(ENGINE_A, 0.0)]
    assert expectations_missed(tmp_path, TEXT, series, expected, "2h") == ""
