"""docs/operations.md: its figures are the measured ones, its limits fit them, and what it names is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from joulescope.cli.serve import END_SECONDS
from joulescope.cli.stay import LAST_PAUSE_SECONDS
from joulescope.config.table import TABLE
from joulescope.export.records import MAX_PENDING_BYTES
from joulescope.hook.link import LAST_RETRY_SECONDS, MAX_HEARD_BYTES
from joulescope.hook.wire import MAX_FRAME_BYTES
from joulescope.ingest.listener import _MAX_SESSIONS, MAX_UNFINISHED_BYTES

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
FIGURES: dict[str, Any] = json.loads((ROOT / "benchmarks/results/sidecar_size.json").read_text())
MIB = {"Mi": 1.0, "Gi": 1024.0}
WORDS = {
    "idle": "no engine yet, 1 GPU",
    "small": "1 engine on 1 GPU, 8 requests at once",
    "tp8": "1 engine on 8 GPUs, 256 requests at once",
    "full": "the same, but 400 requests end each second, and every memory and log is on",
    "flood": "and 70,000 requests wait, which is more than it follows",
}


def test_the_table_holds_what_was_measured() -> None:
    """Memory at its most and processor time, rounded, by load."""
    rows = re.findall(r"^\| ([^|]+) \| (\d+) MiB \| ([\d.]+) \| ([\d.]+) s \|$", PAGE, re.MULTILINE)
    measured = [
        (
            words,
            f"{FIGURES['loads'][name]['peak_rss_mib']:.0f}",
            f"{FIGURES['loads'][name]['cpu_cores']:.2f}",
            f"{FIGURES['loads'][name]['end_seconds']:.1f}",
        )
        for name, words in WORDS.items()
    ]
    assert rows == measured


def test_what_a_limit_does_is_what_was_measured() -> None:
    """The sentence on CPU limits: starts, and periods in which the kernel held it back."""
    by_limit = {row["limit"]: row for row in FIGURES["limits"] if row["load"] == "tp8"}
    whole, half, tenth = by_limit[1.0], by_limit[0.5], by_limit[0.1]
    assert whole["periods_held_back"] == 0
    said = " ".join(PAGE.split())
    assert (
        f"with half a core {half['start_seconds']:.0f} s, with a tenth {tenth['start_seconds']:.0f} s" in said
    )
    assert f"held back in {tenth['periods_held_back']} of {tenth['periods']} periods" in said


def test_the_resources_fit_the_figures() -> None:
    """The request holds a full load with room to spare, the limit what a flood needs and 64 MiB of pages."""
    (block,) = re.findall(r"^```yaml\n(resources:.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    resources = yaml.safe_load(block)["resources"]
    loads = FIGURES["loads"]
    assert mib(resources["requests"]["memory"]) > 1.25 * loads["full"]["peak_rss_mib"]
    assert mib(resources["limits"]["memory"]) > 1.25 * (loads["flood"]["peak_rss_mib"] + 64)
    assert float(resources["limits"]["cpu"]) > 2 * max(load["cpu_busiest_second"] for load in loads.values())
    assert int(resources["requests"]["cpu"].removesuffix("m")) / 1000 > loads["tp8"]["cpu_cores"]


def mib(quantity: str) -> float:
    return float(quantity[:-2]) * MIB[quantity[-2:]]


def test_metrics_and_settings_that_it_names_are_there() -> None:
    """Every metric in backticks is on the page of metrics; settings are those of the table."""
    named = set(re.findall(r"`(joulescope_\w+)", PAGE))
    known = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert len(named) > 3
    assert [name for name in named if f"`{name}`" not in known] == []
    settings = set(re.findall(r"configuration\.md#(\w+)", PAGE)) | set(
        re.findall(r"`(\w+_\w+)`", PAGE)
    ) & set(TABLE)
    assert settings <= set(TABLE)
    assert {"request_log", "baseline_dir", "socket_mode"} & settings


def test_bounds_that_it_states_are_the_codes() -> None:
    """Connections, frames, the hook's pauses, names a label, the end."""
    assert f"{_MAX_SESSIONS} connections, frames of {MAX_FRAME_BYTES >> 20} MiB" in PAGE
    assert f"unfinished ones of {MAX_UNFINISHED_BYTES >> 20} MiB in all" in PAGE
    assert f"`wanted`, of at most {MAX_HEARD_BYTES >> 10} KiB" in PAGE
    assert f"lines wait, {MAX_PENDING_BYTES >> 20} MiB of them" in PAGE
    assert f"{TABLE['max_label_values'].default} names a label" in PAGE
    assert f"After {END_SECONDS} s the process ends" in PAGE
    assert "at most once a second" in PAGE
    assert LAST_RETRY_SECONDS == 1.0
    assert LAST_PAUSE_SECONDS == 60.0
    assert "at most a minute apart" in PAGE
