"""docs/sensors.md: its table of faults says what the tests hold, its names exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from joulescope.export.metrics import METRICS
from joulescope.export.readers import CAPABILITY_LABELS
from tests.sensors.nvml_fault_table import FAULTS, GAUGES, Fault

PAGE = (Path(__file__).parents[2] / "docs" / "sensors.md").read_text(encoding="utf-8")
TABLE = [line.strip("|").split(" | ") for line in PAGE.partition("| back | costs |")[2].splitlines()]
ROWS = {row[0].strip(): [cell.strip() for cell in row] for row in TABLE if len(row) == 6}


def cells(fault: Fault) -> list[str]:
    """What the page has to say of a fault, cell by cell, without what to do about it."""
    said = [*(f"`{words}`" for words in fault.warnings), *([f"`{fault.told}`"] if fault.told else [])]
    back = "–" if fault.back_seconds is None else f"{fault.back_seconds:g} s"
    return [fault.name, ", ".join(said) or "–", shown(fault), back, costs(fault)]


def shown(fault: Fault) -> str:
    if fault.up is None:
        return "nothing of the GPU"
    absent = "gauges" if fault.absent == GAUGES else ", ".join(f"`{name}`" for name in fault.absent)
    return "; ".join(
        [
            f"up {fault.up:g}",
            f"joules {'rise' if fault.rising else 'stand'}",
            *([f"absent: {absent}"] if absent else []),
        ]
    )


def costs(fault: Fault) -> str:
    if fault.lost_meanwhile:
        return "all meanwhile"
    if fault.back_seconds is None:
        return "all from then on"
    return f"{fault.lost_seconds:g} s"


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_page_says_of_each_fault_what_the_tests_hold(fault: Fault) -> None:
    """Log lines, metrics, times and joules of a row are those that are tested, and there is advice."""
    *told, advice = ROWS[fault.name]
    assert told == cells(fault)
    assert advice


def test_the_page_has_no_other_faults() -> None:
    """Nothing stands there, in the same order, that is not tested."""
    assert [name for name in ROWS if not name.startswith("---")] == [fault.name for fault in FAULTS]


def test_the_page_names_what_exists() -> None:
    """Every metric that is named is exported, and every label of the capabilities is explained."""
    names = {metric.name for metric in METRICS}
    named = set(re.findall(r"`(joulescope_\w+[a-z])`", PAGE))
    assert named
    assert named <= names
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)) == set(CAPABILITY_LABELS)
