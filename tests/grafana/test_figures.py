"""The dashboards' figures are right where names collide: many sidecars that call everything alike.

Twenty-five nodes in each of two clusters have the same targets, engine names and GPU indices; only the
cluster and the GPUs' UUIDs differ. One GPU is shared by two engines, of which
one makes images.
"""

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
from tests.promtool import expectations_missed

NODES = 25
SIDECARS = 2 * NODES
SHOWN = Shown(0.0, 600, 30, scrape_seconds=30.0)
AT = "20m"
ENGINE, SECOND = "m-0", "n-0"
WATTS = {"decode": 240.0, "prefill": 60.0, "idle": 64.0, "overhead": 24.0, "unattributed": 12.0}
SECOND_WATTS, TOKENS, SECOND_TOKENS = 32.0, 128.0, 16.0
MEASURED = SIDECARS * sum(WATTS.values()) + SECOND_WATTS


def _rising(per_second: float) -> str:
    return f"0+{per_second * 30:g}x60"


def _series() -> dict[str, str]:
    found: dict[str, str] = {}

    def add(name: str, values: str, **labels: str) -> None:
        inside = ", ".join(f'{key}="{value}"' for key, value in labels.items())
        found[f"{name}{{{inside}}}"] = values

    def engine(
        at: dict[str, str], name: str, model: str, gpu: str, watts: dict[str, float], tokens: float
    ) -> None:
        here = {**at, "engine": name}
        unit = "token" if name == ENGINE else "image"
        add("joulescope_engine_info", "1x60", **here, served_model=model, unit=unit)
        add("joulescope_engine_gpu_info", "1x60", **here, gpu=gpu)
        add("joulescope_generated_tokens_total", _rising(tokens), **here)
        for phase, value in watts.items():
            labels = {**here, "gpu": gpu, "phase": phase}
            add("joulescope_attributed_energy_joules_total", _rising(value), **labels)

    for number in range(SIDECARS):
        at = {"cluster": f"c{number % 2}", "job": "joulescope", "instance": f"node-{number // 2}"}
        gpu = f"GPU-{number}"
        add("joulescope_build_info", "1x60", **at, version="1")
        add("joulescope_facility_pue_ratio", "1.25x60", **at)
        add("joulescope_gpu_info", "1x60", **at, gpu=gpu, index="0")
        more = SECOND_WATTS if number == 0 else 0.0
        add("joulescope_measured_energy_joules_total", _rising(sum(WATTS.values()) + more), **at, gpu=gpu)
        add("joulescope_idle_energy_joules_total", _rising(WATTS["idle"]), **at, gpu=gpu)
        for reason in ("startup", "preemption"):
            half = _rising(WATTS["overhead"] / 2)
            add("joulescope_overhead_energy_joules_total", half, **at, gpu=gpu, reason=reason)
        unknown = _rising(WATTS["unattributed"])
        add("joulescope_unattributed_energy_joules_total", unknown, **at, gpu=gpu, reason="no_engine")
        phases = {phase: WATTS[phase] for phase in ("decode", "prefill")}
        engine(at, ENGINE, "m", gpu, phases, TOKENS)
        if number == 0:
            engine(at, SECOND, "n", gpu, {"decode": SECOND_WATTS}, SECOND_TOKENS)
    return found


def _expression(uid: str, title: str, ref: str = "A", **values: str) -> str:
    board: dict[str, Any] = json.loads((DASHBOARDS / f"joulescope-{uid}.json").read_text())
    (panel,) = (each for each in board["panels"] if each["title"] == title)
    (target,) = (each for each in panel["targets"] if each["refId"] == ref)
    return interpolated(target["expr"], {**chosen(board), **values, **SHOWN.values})


def _missed(folder: Path, expression: str, *samples: tuple[str, float]) -> str:
    return expectations_missed(folder, "groups: []\n", _series(), {expression: samples}, AT)


ATTRIBUTED = SIDECARS * (WATTS["decode"] + WATTS["prefill"])


@pytest.mark.parametrize(
    ("panel", "values", "samples"),
    [
        (("fleet", "GPU power"), {}, [("", MEASURED)]),
        (("fleet", "GPU power"), {"cluster": "c1"}, [("", NODES * sum(WATTS.values()))]),
        (("fleet", "Where the watts go", "A"), {}, [("", SIDECARS * WATTS["decode"] + SECOND_WATTS)]),
        (("fleet", "Where the watts go", "B"), {}, [("", SIDECARS * WATTS["prefill"])]),
        (("fleet", "Where the watts go", "C"), {}, [("", SIDECARS * WATTS["idle"])]),
        (("fleet", "Where the watts go", "D"), {}, [("", SIDECARS * WATTS["overhead"])]),
        (("fleet", "Where the watts go", "E"), {}, [("", SIDECARS * WATTS["unattributed"])]),
        (("fleet", "Where the watts go", "F"), {}, [("", MEASURED)]),
        (("fleet", "Where the joules went", "C"), {}, [("", SIDECARS * WATTS["idle"] * 600)]),
        (
            ("fleet", "Power by model"),
            {},
            [('{served_model="m"}', ATTRIBUTED), ('{served_model="n"}', SECOND_WATTS)],
        ),
        (("fleet", "Power by model"), {"model": "n"}, [('{served_model="n"}', SECOND_WATTS)]),
        (
            ("fleet", "Energy per output token by model"),
            {},
            [
                ('{served_model="m"}', ATTRIBUTED / (SIDECARS * TOKENS)),
                ('{served_model="n"}', SECOND_WATTS / SECOND_TOKENS),
            ],
        ),
        # Images are no tokens: they have a line of their own, and no part in the figure over all models.
        (("fleet", "Energy per output token"), {}, [("", ATTRIBUTED / (SIDECARS * TOKENS))]),
        (("fleet", "Output tokens"), {}, [("", SIDECARS * TOKENS)]),
        # The shared GPU's idle watts are there once, though two engines run on it.
        (("engine", "Power by phase", "C"), {}, [("", SIDECARS * WATTS["idle"])]),
        (("engine", "Power by phase", "C"), {"engine": SECOND}, [("", WATTS["idle"])]),
        (("engine", "Power by phase", "A"), {"engine": SECOND}, [("", SECOND_WATTS)]),
        (("engine", "Power for requests"), {"model": "m"}, [("", ATTRIBUTED)]),
        (("cost", "Energy"), {}, [("", MEASURED / 6)]),
        (
            ("cost", "Energy"),
            {"scope": "joulescope_facility_pue_ratio"},
            [("", 1.25 * MEASURED / 6)],
        ),
        (("cost", "Power of the GPUs and of the building for them", "B"), {}, [("", 0.25 * MEASURED)]),
    ],
)
def test_each_joule_is_counted_once(
    tmp_path: Path, panel: tuple[str, ...], values: dict[str, str], samples: list[tuple[str, float]]
) -> None:
    """The figure is what one works out by hand, whatever is chosen."""
    assert _missed(tmp_path, _expression(*panel, **values), *samples) == ""


def test_the_table_has_a_row_for_each_engine(tmp_path: Path) -> None:
    """Fifty-one engines, though fifty have one name and each target's name is there twice."""
    counted = f"count({_expression('fleet', 'Engines', 'A')})"
    assert _missed(tmp_path, counted, ("", SIDECARS + 1)) == ""


def test_no_baseline_is_no_number(tmp_path: Path) -> None:
    """Where nothing is compared the index has no value, and neither has the expected figure."""
    assert _missed(tmp_path, _expression("engine", "Index against baseline")) == ""
    title = "Energy per output token, and what the same work should cost"
    assert _missed(tmp_path, _expression("engine", title, "C")) == ""


def test_a_wrong_figure_is_noticed(tmp_path: Path) -> None:
    """promtool does look."""
    assert "FAILED" in _missed(tmp_path, _expression("fleet", "GPU power"), ("", MEASURED + 1))
