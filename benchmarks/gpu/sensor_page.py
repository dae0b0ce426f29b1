"""The report on a GPU's energy meter as a page."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any


def text_of(report: dict[str, Any]) -> str:
    """The report as a page."""
    states = {"idle": report["idle"], "with a CUDA context": report.get("context")}
    states = {title: state for title, state in states.items() if state} | {
        "under load": report.get("load") or {}
    }
    lines = [f"# The energy meter of {report['gpu']['name']}\n", f"{report['machine']}\n"]
    lines += [f"`{report['gpu']}`\n", f"| | {' | '.join(states)} |", "|---|" + "---|" * len(states)]

    def row(title: str, *path: str) -> None:
        values = [reduce(lambda found, key: (found or {}).get(key), path, state) for state in states.values()]
        cells = ["–" if value is None else f"{value:.4g}" for value in values]
        lines.append(f"| {title} | {' | '.join(cells)} |")

    row("counter ticks every, ms (median)", "counter_tick_ms", "p50")
    row("5th percentile", "counter_tick_ms", "p5")
    row("95th percentile", "counter_tick_ms", "p95")
    row("counter counts in, mJ", "counter_resolution_mj")
    for name in _names(states, "power_refresh_ms"):
        row(f"{name} changes every, ms (median)", "power_refresh_ms", name, "p50")
        row(f"{name}, W (median)", "power_watts", name, "p50")
    row("power by the counter, W", "counter_watts")
    for name in _names(states, "counter_to_integrated"):
        row(f"counter / integrated {name}", "counter_to_integrated", name)
    for name in _names(states, "call_us"):
        row(f"call for {name}, µs (median)", "call_us", name, "p50")
        row("99th percentile", "call_us", name, "p99")
    row("the driver's buffer: samples", "buffer", "count")
    row("one every, ms", "buffer", "tick_ms")
    row("mean of the buffer, W", "buffer", "watts")
    return "\n".join([*lines, *_bursts_lines(report), *_gpm_lines(report), *_lack_lines(report)]) + "\n"


def _names(states: Mapping[str, Mapping[str, Any]], table: str) -> list[str]:
    return list(dict.fromkeys(name for state in states.values() for name in state.get(table) or {}))


def _bursts_lines(report: Mapping[str, Any]) -> list[str]:
    bursts = report.get("bursts")
    if not bursts:
        return []
    lines = [
        f"\nFrom {bursts['bursts']} bursts of load:\n",
        "| reading | averages, ms | late by, ms | left unexplained, of a step | renewals |",
        "|---|---|---|---|---|",
    ]
    for name, found in bursts["windows"].items():
        if found is not None:
            lines.append(
                f"| {name} | {found['window_ms']:g} | {found['delay_ms']:g} | {found['error_ratio']:.3f} |"
                f" {found['renewals']:g} |"
            )
    if bursts["call_us_in_burst"]:
        lines += ["\n| call | in a burst, µs p50 | p99 | in a pause, p50 | p99 |", "|---|---|---|---|---|"]
        for name in bursts["call_us_in_burst"]:
            sides = [bursts[side][name] or {} for side in ("call_us_in_burst", "call_us_in_pause")]
            cells = [f"{side[each]:.4g}" if side else "–" for side in sides for each in ("p50", "p99")]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _gpm_lines(report: Mapping[str, Any]) -> list[str]:
    """Under load if it was looked at there: an idle GPU's figures are all alike."""
    gpm = (report.get("load") or {}).get("gpm") or report["idle"].get("gpm")
    if not gpm:
        return []
    lines = ["\n| two samples of GPM, apart by ms | answered, % | different figures |", "|---|---|---|"]
    lines += [
        f"| {gap} | {100 * part:.0f} | {gpm['distinct'][gap]} |" for gap, part in gpm["answered"].items()
    ]
    for name, took in (gpm["call_us"] or {}).items():
        if took:
            lines.append(f"| call for {name}, µs: median {took['p50']:.4g} | 99th {took['p99']:.4g} | |")
    return lines


def _lack_lines(report: Mapping[str, Any]) -> list[str]:
    lacks = report.get("not_looked_at") or {}
    return ["\nNot looked at:\n"] * bool(lacks) + [f"- {name}: {reason}" for name, reason in lacks.items()]
