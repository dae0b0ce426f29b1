"""The panels of causes and latent figures: their numbers are those of the sidecar, put together rightly."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info < (3, 11):
    pytest.skip("the dashboards' SDK needs Python 3.11", allow_module_level=True)

from grafana.__main__ import DASHBOARDS
from grafana.variables import Shown, chosen, interpolated
from joulescope.diagnosis_model import CAUSES
from joulescope.export.metrics import METRICS
from joulescope.export.prometheus import family_of
from tests.export.samples import latents, rich_snapshot
from tests.promtool import expectations_missed

AT, SHOWN = "20m", Shown(0.0, 600, 30, scrape_seconds=30.0)
BOARD: dict[str, Any] = json.loads((DASHBOARDS / "joulescope-efficiency.json").read_text())


def _series() -> dict[str, str]:
    """Two engines of one model, a third of another that makes images. The first puts out three times the
    tokens of the second; only that one has prompts of another length."""
    found: dict[str, str] = {}

    def add(name: str, values: str, **labels: str) -> None:
        inside = ", ".join(f'{key}="{value}"' for key, value in labels.items())
        found[f"{name}{{{inside}}}"] = values

    for engine, unit, tokens, load, mix in (
        ("a", "token", 30, 0.25, 0.0),
        ("b", "token", 10, -0.25, -0.5),
        ("c", "image", 30, 100.0, 0.0),
    ):
        at = {"cluster": "c0", "job": "joulescope", "instance": "node", "engine": engine}
        add("joulescope_engine_info", "1x60", **at, served_model=f"m-{unit}", unit=unit)
        add("joulescope_generated_tokens_total", f"0+{30 * tokens}x60", **at)
        parts = {**dict.fromkeys(CAUSES, 0.0), "load": load, "mix": mix}
        for cause, part in parts.items():
            add("joulescope_diagnosis_change_joules_per_token", f"{part}x60", **at, cause=cause)
    at = {"cluster": "c0", "job": "joulescope", "instance": "node", "engine": "d"}
    add("joulescope_engine_info", "1x60", **at, served_model="m-token", unit="token")
    add("joulescope_generated_tokens_total", "0+300x60", **at)  # without a diagnosis
    return found


def _expression(title: str, ref: str = "A", **values: str) -> str:
    (panel,) = (each for each in BOARD["panels"] if each["title"] == title)
    (target,) = (each for each in panel["targets"] if each["refId"] == ref)
    return interpolated(target["expr"], {**chosen(BOARD), **values, **SHOWN.values})


@pytest.mark.parametrize(
    ("ref", "values", "samples"),
    [
        ("A", {}, [('{cause="load"}', 0.125)]),
        ("B", {}, [('{cause="mix"}', 0.125)]),
        ("A", {"engine": "b"}, []),
        ("B", {"engine": "b"}, [('{cause="load"}', 0.25), ('{cause="mix"}', 0.5)]),
        ("A", {"engine": "c"}, []),  # images are no tokens
        ("A", {"engine": "d"}, []),
    ],
)
def test_causes_of_several_engines_are_weighed_by_their_tokens(
    tmp_path: Path, ref: str, values: dict[str, str], samples: list[tuple[str, float]]
) -> None:
    """Dearer and cheaper apart; engines without a diagnosis weigh nothing."""
    expression = _expression("Why J/token changed", ref, **values)
    assert expectations_missed(tmp_path, "groups: []\n", _series(), {expression: samples}, AT) == ""


def test_the_course_tells_dearer_and_cheaper_apart(tmp_path: Path) -> None:
    """With their signs, so that one stack grows up and the other down, and together they are the change."""
    title = "Causes of the change over time"
    asked = {
        _expression(title, "A"): [('{cause="load"}', 0.125)],
        _expression(title, "B"): [('{cause="mix"}', -0.125)],
    }
    assert expectations_missed(tmp_path, "groups: []\n", _series(), asked, AT) == ""


def _latent_series() -> dict[str, str]:
    """Counters of the sample that rise by its figures in every minute."""
    target = 'cluster="c0", job="j", instance="n"'
    found = {f'joulescope_engine_info{{{target}, engine="llama-0", served_model="m"}}': "1x60"}
    for metric in METRICS:
        if metric.name.startswith(("joulescope_step_", "joulescope_modelled_step", "joulescope_kv_cache_")):
            for sample in family_of(metric, rich_snapshot()).samples:
                labels = {"cluster": "c0", "job": "j", "instance": "n", **sample.labels}
                inside = ", ".join(f'{key}="{value}"' for key, value in labels.items())
                if sample.name.endswith("_total") and not sample.name.endswith("steps_total"):
                    found[f"{sample.name}{{{inside}}}"] = f"0+{sample.value:g}x60"
    return found


def test_latent_figures_are_ratios_of_their_sums(tmp_path: Path) -> None:
    """Each panel's number is the ratio that one works out by hand."""
    told = latents()
    busy, joules = sum(told.bound_seconds.values()), sum(told.modelled_joules.values())
    expected = {
        _expression("What sets the pace", "A"): told.bound_seconds["memory"] / busy,
        _expression("What sets the pace", "D"): told.bound_seconds["host"] / busy,
        _expression("What the joules of steps are for", "A"): told.modelled_joules["static"] / joules,
        _expression("KV cache: used, and full", "A"): told.kv_usage_seconds / told.kv_known_seconds,
        _expression("KV cache: used, and full", "B"): told.kv_full_seconds / told.kv_known_seconds,
    }
    intensity = told.flops / sum(told.read_bytes.values())
    asked = {expression: [("", value)] for expression, value in expected.items()}
    asked[_expression("Arithmetic intensity")] = [('{served_model="m"}', intensity)]
    assert expectations_missed(tmp_path, "groups: []\n", _latent_series(), asked, AT) == ""
