"""The closing summary of a replay: the balance of every GPU, in text or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from joulescope.host_model import HostDomainTotals
from joulescope.ingest.trace import TraceReader
from joulescope.model import METHOD, METHOD_VERSION, MIG_GPM, GpuTotals, MeterComparison
from joulescope.replay import Replay


def summary(replay: Replay, reader: TraceReader) -> dict[str, Any]:
    """The figures, joules per GPU and counts, as a JSON object."""
    snapshot = replay.snapshot
    gpus = snapshot.gpus if snapshot is not None else ()
    engines = snapshot.engines if snapshot is not None else ()
    domains = snapshot.host.domains if snapshot is not None else ()
    return {
        "method": METHOD,
        "method_version": METHOD_VERSION,
        "gpus": {gpu.info.gpu: _balance(gpu) for gpu in gpus},
        "host": {domain.info.domain: _host_balance(domain) for domain in domains},
        "requests_finished": sum(sum(engine.requests_finished.values()) for engine in engines),
        "requests_open": replay.open_requests,
        "steps": sum(engine.steps for engine in engines),
        "request_steps": replay.request_steps,
        "records": replay.record_count,
        "rejected": {**(snapshot.sidecar.rejected_records if snapshot else {}), **reader.rejected},
        "first_rejected": reader.first_rejected,
    }


def _balance(gpu: GpuTotals) -> dict[str, Any]:
    return {
        "measured_joules": gpu.measured_joules,
        "attributed_joules": gpu.attributed_joules,
        "idle_joules": gpu.idle_joules,
        "overhead_joules": sum(gpu.overhead_joules.values()),
        "unattributed_joules": sum(gpu.unattributed_joules.values()),
        "residual_joules": gpu.residual_joules,
        "overhead_reasons": dict(gpu.overhead_joules),
        "unattributed_reasons": dict(gpu.unattributed_joules),
        "energy_source": gpu.info.energy_source,
        "calibration_factor": gpu.info.calibration_factor,
        "counter_to_power_ratio": None if gpu.comparison is None else _overall(gpu.comparison),
    }


def _host_balance(domain: HostDomainTotals) -> dict[str, Any]:
    return {
        "measured_joules": domain.measured_joules,
        "attributed_joules": sum(domain.attributed_joules.values()),
        "other_joules": domain.other_joules,
        "idle_joules": domain.idle_joules,
        "unattributed_joules": sum(domain.unattributed_joules.values()),
        "residual_joules": domain.residual_joules,
        "attributed_reasons": dict(domain.attributed_joules),
        "unattributed_reasons": dict(domain.unattributed_joules),
    }


def _overall(comparison: MeterComparison) -> float | None:
    """Counter over power in the whole trace; ``None`` if nothing was compared."""
    return comparison.counter_joules / comparison.power_joules if comparison.power_joules > 0 else None


def _remarks(balance: dict[str, Any]) -> str:
    """What to know about the meter behind the figures, where it is not the plain counter."""
    remarks = []
    if balance["energy_source"] == "power":
        remarks.append("integrated from power readings")
    if balance["energy_source"] == MIG_GPM:
        remarks.append("an estimate: split off its GPU's by performance counters")
    if balance["calibration_factor"] != 1.0:
        remarks.append(f"calibrated by {balance['calibration_factor']:g}")
    return f"  ({', '.join(remarks)})" if remarks else ""


def _part_lines(balance: dict[str, Any], parts: Sequence[str]) -> Iterator[str]:
    for part in parts:
        joules = balance[f"{part}_joules"]
        reasons = ", ".join(f"{k} {v:.3f}" for k, v in balance.get(f"{part}_reasons", {}).items())
        yield f"  {part:<13}{joules:>14.3f} J{'  (' + reasons + ')' if reasons else ''}"
    yield f"  {'residual':<13}{balance['residual_joules']:>14.6f} J"


def summary_lines(replay: Replay, reader: TraceReader, as_json: bool) -> Iterator[str]:
    """The summary as lines to print."""
    figures = summary(replay, reader)
    if as_json:
        yield json.dumps(figures)
        return
    for gpu, balance in figures["gpus"].items():
        yield f"{gpu}: measured {balance['measured_joules']:.3f} J{_remarks(balance)}"
        yield from _part_lines(balance, ("attributed", "idle", "overhead", "unattributed"))
    for domain, balance in figures["host"].items():
        yield f"host {domain}: measured {balance['measured_joules']:.3f} J"
        yield from _part_lines(balance, ("attributed", "other", "idle", "unattributed"))
    if not figures["gpus"]:
        yield "no GPU samples: nothing was measured, requests carry no joules"
    yield (
        f"{figures['requests_finished']} requests finished, {figures['requests_open']} still open, "
        f"{figures['steps']} steps, method {METHOD}/{METHOD_VERSION}"
    )
    if figures["rejected"]:
        counts = ", ".join(f"{reason} {count}" for reason, count in sorted(figures["rejected"].items()))
        yield f"not used: {counts}{'; first: ' + reader.first_rejected if reader.first_rejected else ''}"
